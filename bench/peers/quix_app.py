"""Quix Streams keeps the counts: one application, its state in RocksDB and a changelog topic, through a repartition topic by user.

Arguments: bootstrap servers, topic, consumer group, a folder for its state, events. Prints a Run as JSON.
"""

import json
import sys
from dataclasses import asdict
from typing import Any

from quixstreams import Application, State
from quixstreams.models import Deserializer

from bench.stopwatch import Stopwatch
from projectors.records.envelope import decoder
from schema.user import Follows

# the name of the state of each user
COUNTS = "counts"


class _Change(Deserializer):  # type: ignore[misc]  # quixstreams is not installed where types are checked
    """A change of a follow, by the decoder of every contender."""

    def __init__(self) -> None:
        super().__init__()
        self._decode = decoder(Follows)

    def __call__(self, value: bytes, ctx: Any) -> Any:
        return self._decode(value)


def main(bootstrap: str, topic: str, group: str, folder: str, events: int) -> None:
    """Two changes for each event. Timed until the checkpoint that holds the last of them is committed."""
    watch = Stopwatch(events=2 * events)
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=folder,
        processing_guarantee="exactly-once",
        loglevel="WARNING",
    )
    counted = 0

    def steps(change: Any) -> list[tuple[int, int, int]]:
        watch.in_hand()
        rows = ((change.before, -1), (change.after, 1))
        found = [((row.follower_id, step, 0), (row.followee_id, 0, step)) for row, step in rows if row is not None]
        return [step for both in found for step in both]

    def count(step: list[int], state: State) -> None:
        nonlocal counted
        following, followers = state.get(COUNTS) or (0, 0)
        state.set(COUNTS, (following + step[1], followers + step[2]))
        counted += 1
        if counted == watch.events:
            app.stop()

    changes = app.dataframe(app.topic(topic, value_deserializer=_Change(), key_deserializer="bytes"))
    users = changes.apply(steps, expand=True)
    users = users.group_by(lambda step: step[0], name="user", key_serializer="integer", key_deserializer="integer")
    users.update(count, stateful=True)
    app.run()
    watch.acknowledged(counted)
    print(json.dumps(asdict(watch.run())))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
