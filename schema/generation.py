"""The record of a generation: what it was built with, from where, and when it became level. Data only, no I/O."""

from typing import Literal

from msgspec import Struct, json

State = Literal["opening", "building", "live", "retired"]


class Generation(Struct, frozen=True):
    """One complete build of the view.

    build: what the keys of its rows bear, until a shard is built again by itself; drawn at random when it is opened, so that one
    opened anew on a Redis that came back empty shares no key with it. codes: Redis field of each view field. prefixes: text cut
    from the values of a field. start: where reading began, by partition ("topic:0"). level: the end offsets that it had to reach
    to be promoted. promoted: the offsets it had reached when it was. topic_ids: Kafka's id of each topic.
    """

    name: str
    build: str
    definition: str
    shards: int
    codes: dict[str, str]
    prefixes: dict[str, str]
    start: dict[str, int]
    level: dict[str, int]
    topic_ids: dict[str, str]
    state: State = "opening"
    promoted: dict[str, int] = {}

    def encode(self) -> bytes:
        return json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> "Generation":
        """Raises msgspec.ValidationError for bytes that no `encode` made."""
        return json.decode(stored, type=cls)
