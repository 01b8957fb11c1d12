"""The record of a generation: what it was built with, from where, and when it became level. Data only, no I/O."""

from typing import Literal

from msgspec import Struct, json

from schema.seen import Seen

State = Literal["filling", "opening", "building", "live", "retired", "dropping"]
Origin = Literal["beginning", "snapshot", "sql"]


class Generation(Struct, frozen=True):
    """One complete build of the view.

    build: what the keys of its rows bear, until a shard is built again by itself; drawn at random when it is opened, so that one
    opened anew on a Redis that came back empty shares no key with it. codes: Redis field of each view field. prefixes: text cut
    from the values of a field. start: where reading began, by partition ("topic:0"). level: the end offsets that it had to reach
    to be promoted. promoted: the offsets it had reached when it was. topic_ids: Kafka's id of each topic.
    state: `filling` while rows from SQL are written, `opening` while its headers are; `retired` was live, and is still kept up to date.
    origin: what lay before `start`: nothing, what a snapshot in the topics repeats, or rows that were written from SQL.
    slot: of the connector, and seen: what its rows have in them, where they came from SQL under change data capture.
    by_itself: promoted without being told to, since there was no other when it was opened. rate: most changes a second while it is
    built, None: no limit. copied: from a view topic, by `viewgate populate`. opened_ms, promoted_ms, retired_ms: when, in Unix
    ms; 0: not yet.
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
    origin: Origin = "beginning"
    by_itself: bool = True
    rate: int | None = None
    opened_ms: int = 0
    promoted_ms: int = 0
    retired_ms: int = 0
    copied: bool = False
    slot: str = ""
    seen: Seen | None = None

    def encode(self) -> bytes:
        return json.encode(self)

    @classmethod
    def decode(cls, stored: bytes) -> "Generation":
        """Raises msgspec.ValidationError for bytes that no `encode` made."""
        return json.decode(stored, type=cls)
