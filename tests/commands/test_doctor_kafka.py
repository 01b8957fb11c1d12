"""`viewgate doctor` on a Kafka that is not as it should be, each time in one way."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource

from app.doctor import kafka as checks
from app.doctor.examination import examine
from demo.publish import Publisher
from demo.servers import kafka
from demo.servers.account import scratch
from demo.servers.kafka import create_topics
from demo.servers.server import Server
from tests.commands.examined import PARTITIONS, UNTOLD, Stack, not_ok, open_stack
from tests.conftest import CACHE
from tests.request.arranged import DEFINITION


@pytest.fixture
async def stack(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Stack]:
    async with open_stack(kafka_at, redis_at, postgres_at) as opened:
        yield opened


@pytest.fixture
async def bare(apache_kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Stack]:
    """Without its topics."""
    async with open_stack(apache_kafka_at, redis_at, postgres_at, topics=False) as opened:
        yield opened


async def _create(stack: Stack, partitions: int = PARTITIONS, /, **config: str) -> None:
    """The topics, the first of them with this configuration, dots written as underscores, and these partitions."""
    first, *others = stack.definition.topics
    bootstrap = stack.settings.kafka_bootstrap
    await create_topics(bootstrap, dict.fromkeys(others, PARTITIONS))
    await create_topics(bootstrap, {first: partitions}, {name.replace("_", "."): value for name, value in config.items()})


async def test_topics_that_are_missing_are_wrong_and_are_not_made(bare: Stack) -> None:
    found = await bare.examine()
    verdicts = not_ok(found)
    assert verdicts.pop(("Kafka", "topics")) == "wrong"
    assert set(verdicts.values()) == {"skipped"}
    make = f"kafka-topics.sh --bootstrap-server {bare.settings.kafka_bootstrap} --create --topic {bare.topic('likes')} --partitions 6"
    assert make in found["Kafka", "topics"].mend
    admin = AIOKafkaAdminClient(bootstrap_servers=bare.settings.kafka_bootstrap)
    await admin.start()
    try:
        assert not set(bare.definition.topics) & set(await admin.list_topics())
    finally:
        await admin.close()


async def test_one_topic_that_is_missing_leaves_the_checks_of_the_others(bare: Stack) -> None:
    missing, *others = bare.definition.topics
    await create_topics(bare.settings.kafka_bootstrap, dict.fromkeys(others, PARTITIONS))
    found = await bare.examine()
    assert not_ok(found) == {("Kafka", "topics"): "wrong"}
    assert found["Kafka", "topics"].found == f"there is no {missing}"


async def test_a_compacted_topic_is_wrong(bare: Stack) -> None:
    await _create(bare, cleanup_policy="compact,delete")
    found = await bare.examine()
    assert not_ok(found) == {("Kafka", "cleanup"): "wrong"}
    assert f"--entity-name {bare.topic('users')} --add-config cleanup.policy=delete`" in found["Kafka", "cleanup"].mend


@pytest.mark.parametrize(
    ("config", "kept"), [({"retention_ms": "86400000"}, "24.0 hours"), ({"retention_bytes": "1000000"}, "1,000,000 bytes a partition")]
)
async def test_a_retention_that_ends_is_a_warning_that_says_how_long(bare: Stack, config: dict[str, str], kept: str) -> None:
    await _create(bare, **config)
    found = await bare.examine()
    assert not_ok(found) == {("Kafka", "retention"): "warning"}
    assert found["Kafka", "retention"].found.startswith(f"{bare.topic('users')} keeps {kept}: no projector may be away for longer")


async def test_a_topic_of_one_partition_is_a_warning(bare: Stack) -> None:
    await _create(bare, 1)
    found = await bare.examine()
    assert not_ok(found) == {("Kafka", "partitions"): "warning"}
    assert f"{bare.topic('users')} 1" in found["Kafka", "partitions"].found


async def test_dead_letters_are_counted(stack: Stack) -> None:
    publisher = Publisher(stack.settings.kafka_bootstrap, stack.settings.topic_prefix)
    await create_topics(stack.settings.kafka_bootstrap, {stack.topic("user.dead-letters"): 1})
    assert not_ok(await stack.examine()) == {}
    publisher.send("user.dead-letters", b"1", b"no change")
    publisher.flush()
    found = await stack.examine()
    assert not_ok(found) == {("Kafka", "dead letters"): "warning"}
    assert found["Kafka", "dead letters"].found == f"1 in {stack.topic('user.dead-letters')}"


async def test_records_and_lag_are_told_by_what_the_group_has_committed(apache_kafka_at: Server, stack: Stack) -> None:
    publisher = Publisher(stack.settings.kafka_bootstrap, stack.settings.topic_prefix)
    for key in range(12):
        publisher.send("likes", str(key).encode(), b"{}")
    publisher.flush()
    await _commit(stack, TopicPartition(stack.topic("likes"), 0), 1)
    found = await stack.examine()
    assert not_ok(found) == {}
    assert found["Kafka", "lag"].found == f"11 offsets behind, by group {stack.settings.consumer_group}"
    assert f"{stack.topic('likes')} 12" in found["Kafka", "records"].found


@pytest.mark.parametrize(("ahead", "verdict"), [(5, "warning"), (-5, "ok")])
async def test_a_record_from_the_future_is_a_warning(stack: Stack, ahead: float, verdict: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.settings.kafka_bootstrap)
    await producer.start()
    try:
        await producer.send_and_wait(stack.topic("tweets"), b"{}", timestamp_ms=round((time.time() + ahead) * 1000))
    finally:
        await producer.stop()
    found = await stack.examine()
    assert found["Kafka", "clock"].verdict == verdict
    assert ("ahead of our clock" if ahead > 0 else "behind our clock") in found["Kafka", "clock"].found


async def test_a_mock_broker_is_told_what_it_can_and_the_rest_is_skipped(redis_at: Server, postgres_at: Server) -> None:
    with scratch() as folder:
        async with kafka.start(folder, CACHE, prefer="embedded", say=print) as mock, open_stack(mock, redis_at, postgres_at) as stack:
            results = await examine(stack.settings, stack.definition)
    found = {(result.server, result.check): result for result in results}
    assert set(not_ok(found).items()) == {(key, "skipped") for key in UNTOLD}
    assert "cannot be told: IncompatibleBrokerVersion" in found["Kafka", "cleanup"].found


async def _commit(stack: Stack, at: TopicPartition, offset: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=stack.settings.kafka_bootstrap, group_id=stack.settings.consumer_group, enable_auto_commit=False
    )
    consumer.assign([at])
    await consumer.start()
    try:
        await consumer.commit({at: offset})
    finally:
        await consumer.stop()


@dataclass(frozen=True, slots=True)
class Admin:
    """Tells the configuration of topics, as a broker would."""

    config: Mapping[str, str]

    async def describe_configs(self, resources: Sequence[ConfigResource]) -> list[Any]:
        entries = list(self.config.items())
        return [SimpleNamespace(resources=[(0, "", 2, resource.name, entries) for resource in resources])]


@pytest.mark.parametrize(
    ("replicas", "in_sync", "least", "verdict"),
    [(3, 3, 2, "ok"), (1, 1, 1, "warning"), (3, 2, 2, "warning"), (3, 3, 3, "warning"), (3, 3, 1, "warning"), (2, 2, 3, "wrong")],
)
async def test_replicas_are_held_against_the_brokers_and_against_what_a_write_needs(
    replicas: int, in_sync: int, least: int, verdict: str
) -> None:
    partition = {"partition": 0, "leader": 1, "replicas": list(range(replicas)), "isr": list(range(in_sync))}
    topics = {topic: {"partitions": [partition]} for topic in DEFINITION.topics}
    admin = Admin({"min.insync.replicas": str(least)})
    asked = checks.Asked(admin, None, "broker:9092", "group", DEFINITION, "dead", brokers=3, topics=topics)
    check = next(check for check in checks.KAFKA.checks if check.name == "replication")
    assert (await check.run(asked)).verdict == verdict


async def test_a_partition_without_a_leader_is_wrong() -> None:
    partitions = [{"partition": number, "leader": -1 if number else 1} for number in range(2)]
    topics = {topic: {"partitions": partitions} for topic in DEFINITION.topics}
    asked = checks.Asked(None, None, "broker:9092", "group", DEFINITION, "dead", brokers=3, topics=topics)
    check = next(check for check in checks.KAFKA.checks if check.name == "partitions")
    finding = await check.run(asked)
    assert (finding.verdict, finding.found) == ("wrong", "without a leader: users:1, tweets:1, follows:1, likes:1")
