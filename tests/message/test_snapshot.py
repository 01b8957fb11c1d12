"""Where the last snapshot in the topics begins: found or refused, and never wrong where it is found."""

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from demo.servers.kafka import create_topics
from demo.servers.server import Server
from projectors.snapshot import SnapshotUnsound, last_snapshot
from projectors.topic_reader import Bounds, KafkaReader
from schema.positions import Partition
from tests.message.connector import DEFINITION, PARTITIONS, Follows, History, People, Topics

HISTORIES = 600


async def test_what_is_folded_from_the_last_snapshot_are_the_true_rows_or_it_is_refused() -> None:
    found, refused = 0, 0
    for seed in range(HISTORIES):
        history = History(seed)
        history.run()
        try:
            snapshot = await last_snapshot(history.topics)
        except SnapshotUnsound:
            refused += 1
            continue
        found += 1
        assert history.topics.folded(snapshot.start) == history.truth, f"seed {seed}"
    # a run without many of either has not looked where the errors would be
    assert found > HISTORIES / 10
    assert refused > HISTORIES / 10


@pytest.fixture
def topics() -> Topics:
    """An older stream with a delete, a snapshot at LSN 50 of one person and one follow, and a change after it."""
    made = Topics()
    made.send("c", None, People(1, "old"), 10, None)
    made.send("c", None, Follows(1, 2), 11, 10)
    made.send("c", None, Follows(2, 1), 12, 10)
    made.send("d", Follows(1, 2), None, 20, 11)
    made.now_ms += 5
    made.send("r", None, Follows(2, 1), 50, None)
    made.send("r", None, People(1, "new"), 50, None)
    made.now_ms += 5
    made.send("c", None, Follows(1, 1), 60, None)
    return made


async def refusal(topics: Topics) -> str:
    with pytest.raises(SnapshotUnsound) as refused:
        await last_snapshot(topics)
    assert str(refused.value).endswith("or from SQL, `viewgate rebuild --from sql`.")
    return str(refused.value)


async def test_what_an_older_stream_left_is_left_out_also_where_the_snapshot_has_no_row(topics: Topics) -> None:
    snapshot = await last_snapshot(topics)
    assert snapshot.lsn == 50
    assert snapshot.start == {("people", 0): 0, ("people", 1): 1, ("follows", 0): 1, ("follows", 1): 2}
    assert topics.folded(snapshot.start) == ({1: "new"}, {1: 2})


async def test_a_snapshot_of_a_connector_that_had_streamed_is_refused(topics: Topics) -> None:
    for op, row, lsn in (("r", Follows(2, 1), 61), ("r", People(1, "new"), 61), ("c", Follows(3, 1), 70)):
        topics.send(op, None, row, lsn, 60)
    assert "had streamed before" in await refusal(topics)


@pytest.mark.parametrize(
    ("op", "before", "after"),
    [
        ("c", None, People(1, "new")),
        ("u", People(1, "old"), People(1, "new")),
        ("d", People(7, "gone"), None),
        ("d", People(2, "gone"), None),
    ],
)
async def test_a_change_that_the_rows_have_though_its_lsn_is_higher_is_refused(
    topics: Topics, op: str, before: People | None, after: People | None
) -> None:
    topics.send(op, before, after, 61, 60)
    assert "is in the rows of the snapshot already" in await refusal(topics)


async def test_a_change_of_what_the_rows_have_is_not(topics: Topics) -> None:
    topics.send("u", People(1, "new"), People(1, "newer"), 61, 60)
    topics.send("u", People(1, "newer"), People(1, "newest"), 62, 61)
    topics.send("d", Follows(2, 1), None, 63, 62)
    assert topics.folded((await last_snapshot(topics)).start) == ({1: "newest"}, {1: 1})


async def test_a_change_that_is_in_both_is_refused(topics: Topics) -> None:
    topics.send("u", Follows(2, 1), Follows(2, 3), 49, 40)
    assert "is in both" in await refusal(topics)


@pytest.mark.parametrize("mark", ["last_in_data_collection", "first", "true"])
async def test_a_snapshot_that_was_begun_twice_at_one_lsn_is_refused(mark: str) -> None:
    topics = Topics()
    topics.send("r", None, People(1, "new"), 50, None)
    for _ in range(2):
        topics.send("r", None, Follows(2, 1), 50, None, snapshot=mark)
    topics.send("c", None, Follows(1, 1), 60, None)
    assert "cannot be told that each row is there once" in await refusal(topics)


async def test_a_snapshot_that_nothing_has_followed_yet_is_refused() -> None:
    topics = Topics()
    topics.send("r", None, Follows(2, 1), 50, None)
    topics.send("r", None, People(1, "new"), 50, None)
    assert "no change has come after" in await refusal(topics)


async def test_a_topic_without_a_snapshot_is_refused_by_its_name() -> None:
    topics = Topics()
    topics.send("r", None, People(1, "new"), 50, None)
    topics.send("c", None, Follows(1, 1), 60, None)
    assert "there is no snapshot in follows" in await refusal(topics)


async def test_tables_of_two_snapshots_are_refused(topics: Topics) -> None:
    topics.send("r", None, Follows(2, 1), 80, None)
    assert "at different times: the last snapshot's LSN is of people 50, follows 80" in await refusal(topics)


async def test_a_truncate_after_the_snapshot_is_refused(topics: Topics) -> None:
    value = {"op": "t", "before": None, "after": None, "source": {"lsn": 70, "sequence": '["60","70"]'}}
    topics.append(Partition("follows", 0), msgspec.json.encode(value))
    assert "truncated after the snapshot" in await refusal(topics)


@pytest.mark.parametrize("partition", [Partition("follows", 0), Partition("follows", 1)])
async def test_a_change_that_does_not_tell_its_lsn_is_refused(topics: Topics, partition: Partition) -> None:
    topics.send("c", None, Follows(4 + partition.number, 1), None, None)
    assert "does not tell its LSN" in await refusal(topics)


async def test_a_row_that_does_not_tell_its_lsn_is_refused(topics: Topics) -> None:
    topics.send("r", None, Follows(6, 1), None, None)
    assert "does not tell the LSN of its snapshot" in await refusal(topics)


async def test_an_lsn_that_is_told_twice_and_differently_is_none(topics: Topics) -> None:
    topics.send("c", None, Follows(4, 1), 70, 60, sequence='["60","71"]')
    assert "does not tell its LSN" in await refusal(topics)


async def test_an_incremental_snapshot_is_refused() -> None:
    topics = Topics()
    topics.send("r", None, Follows(2, 1), 50, None, snapshot="incremental")
    topics.send("r", None, People(1, "new"), 50, None, snapshot="incremental")
    topics.send("c", None, Follows(1, 1), 60, None)
    assert "an incremental one" in await refusal(topics)


async def test_rows_of_one_snapshot_with_changes_between_them_are_refused(topics: Topics) -> None:
    topics.send("c", None, People(3, "between"), 60, None)
    topics.send("r", None, People(5, "late"), 50, None)
    assert "have changes between them" in await refusal(topics)


@pytest.mark.parametrize("cut", [1, 2])
async def test_a_snapshot_whose_first_rows_retention_may_have_taken_is_refused(topics: Topics, cut: int) -> None:
    topics.cut[Partition("people", 1)] = cut
    assert "rows of it may be gone" in await refusal(topics) if cut == 1 else await refusal(topics)


async def test_what_retention_took_before_the_snapshot_is_not_missed(topics: Topics) -> None:
    topics.cut[Partition("follows", 1)] = 1
    assert topics.folded((await last_snapshot(topics)).start) == ({1: "new"}, {1: 2})


async def test_a_change_before_the_snapshot_that_is_newer_than_it_is_refused() -> None:
    topics = Topics()
    topics.send("c", None, Follows(4, 1), 90, None)
    topics.send("r", None, Follows(2, 1), 50, None)
    topics.send("r", None, People(1, "new"), 50, None)
    topics.send("c", None, Follows(1, 1), 60, None)
    assert "is not below the snapshot's, 50" in await refusal(topics)


@pytest.mark.parametrize(("lsn", "later_ms"), [(40, 0), (70, -9)])
async def test_where_no_row_is_time_and_lsn_must_agree(topics: Topics, lsn: int, later_ms: int) -> None:
    topics.now_ms += later_ms
    topics.send("c", None, Follows(3, 1), lsn, 30)
    assert "time and LSN of the change at follows:1:3 disagree" in await refusal(topics)


async def test_where_no_row_is_an_older_change_after_newer_ones_is_refused(topics: Topics) -> None:
    topics.now_ms -= 9
    topics.send("c", None, Follows(3, 1), 30, 20)
    assert "time and LSN of the change at follows:1:3 disagree" in await refusal(topics)


async def test_a_truncate_is_refused_also_where_no_row_is(topics: Topics) -> None:
    value = {"op": "t", "source": {"lsn": 70, "sequence": '["60","70"]'}}
    topics.append(Partition("follows", 1), msgspec.json.encode(value))
    assert "truncated after the snapshot, at follows:1:3" in await refusal(topics)


async def test_rows_that_retention_takes_while_they_are_read_are_refused(topics: Topics) -> None:
    bounds, asked = topics.bounds, []

    async def cutting() -> Bounds:
        asked.append(topics)
        if len(asked) == 2:
            topics.cut[Partition("people", 1)] = 2
        return await bounds()

    topics.bounds = cutting  # type: ignore[method-assign]  # as Kafka would answer
    assert "rows of the snapshot are gone from it" in await refusal(topics)


async def test_a_change_that_is_in_both_is_refused_also_if_it_came_while_they_were_read(topics: Topics) -> None:
    bounds, asked = topics.bounds, []

    async def growing() -> Bounds:
        asked.append(topics)
        if len(asked) == 2:
            topics.send("u", Follows(2, 1), Follows(2, 3), 49, 40)
        return await bounds()

    topics.bounds = growing  # type: ignore[method-assign]  # as Kafka would answer
    assert "is in both" in await refusal(topics)


async def test_what_no_projector_counts_does_not_matter(topics: Topics) -> None:
    for value in (None, b"no JSON", b'{"op": "m"}', b'{"source": {"lsn": 1}}'):
        for partition in topics.records_:
            topics.append(partition, value)
    assert (await last_snapshot(topics)).lsn == 50


async def test_a_snapshot_is_found_in_kafka_past_transactions(apache_kafka_at: Server, topics: Topics) -> None:
    prefix = "snapshot-in-kafka."
    await create_topics(apache_kafka_at.address, {prefix + topic: PARTITIONS for topic in DEFINITION.topics})
    at = {Partition(prefix + topic, number): lying for (topic, number), lying in topics.records_.items()}
    producer = AIOKafkaProducer(bootstrap_servers=apache_kafka_at.address, transactional_id=prefix)
    await producer.start()
    for (topic, number), lying in at.items():
        for one in lying:
            # a transaction each: its end takes an offset too
            async with producer.transaction():
                await producer.send_and_wait(topic, one.value, one.key, number, one.timestamp)
    await producer.stop()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=apache_kafka_at.address, enable_auto_commit=False, auto_offset_reset="none", isolation_level="read_committed"
    )
    await consumer.start()
    try:
        snapshot = await last_snapshot(KafkaReader(consumer, [prefix + topic for topic in DEFINITION.topics]))
    finally:
        await consumer.stop()
    assert snapshot.lsn == 50
    # (people, 0) is empty; in the others every record is followed by the end of its transaction
    assert snapshot.start == {(prefix + "people", 0): 0, (prefix + "people", 1): 2, (prefix + "follows", 0): 2, (prefix + "follows", 1): 4}
