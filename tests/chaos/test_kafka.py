"""Faults of Kafka's brokers: killed by SIGKILL, alone and as one of three; frozen while they lead, so that others take the lead."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient

from demo.servers import kafka
from demo.servers.account import scratch
from demo.servers.process import NotReadyError, until
from demo.servers.server import Server
from demo.sink import end_offsets
from tests.chaos.conftest import OpenScene
from tests.chaos.scene import Scene
from tests.conftest import CACHE
from tests.faults.test_sources import opened

At = tuple[str, int]


@pytest.fixture
async def nodes() -> AsyncIterator[Sequence[Server]]:
    """A Kafka of three nodes; the number of a node is its place, from 1."""
    with scratch() as folder:
        async with kafka.start_three(folder, CACHE, say=print) as servers:
            yield servers


def together(nodes: Sequence[Server]) -> Server:
    return Server("kafka", "installed", "three nodes", ",".join(node.address for node in nodes), None)


async def test_f9_broker_killed_one_node(scene_with: OpenScene) -> None:
    """Kafka's only node gets SIGKILL while changes come in, is away for three seconds, and is started on the same data."""
    async with scene_with("kafka") as scene:
        await scene.goes_on(2)
        process = scene.kafka.process
        assert process
        await process.kill()
        before = scene.writer.published
        await scene.goes_on(3)
        waiting = len(scene.road.publisher._producer)
        assert waiting > 100
        await process.start()
        scene.mended()
        scene.proves(f"nothing answered; {scene.writer.published - before:,} changes were made meanwhile, and {waiting:,} waited for Kafka")
        await scene.healed()


async def test_f9_broker_killed_three_nodes(scene_with: OpenScene, nodes: Sequence[Server]) -> None:
    """Of three nodes, with three replicas and two of them in sync required, the one that coordinates the projectors' group gets SIGKILL.
    The others take over what it led; after five seconds it is started again."""
    async with scene_with(kafka_at=together(nodes)) as scene:
        await scene.goes_on(2)
        admin = await opened(scene.kafka.address)
        number = await admin.find_coordinator(scene.road.settings.consumer_group)
        await admin.close()
        process, others = nodes[number - 1].process, together([node for node in nodes if node is not nodes[number - 1]])
        led = [at for at, leader in (await leaders(scene, others)).items() if leader == number]
        assert process
        assert led
        await process.kill()
        await until(lambda: left(scene, others, number), 30)
        before = await end_offsets(others.address, scene.road.definition.topics)
        await scene.goes_on(5)
        after = await end_offsets(others.address, scene.road.definition.topics)
        came = sum(after[at] - before[at] for at in led)
        assert came > 0
        await process.start()
        scene.mended()
        scene.proves(f"node {number} had led {len(led)} of {len(after)} partitions; {came:,} records came to these while it was away")
        await scene.healed()


async def test_f10_leader_change(scene_with: OpenScene, nodes: Sequence[Server]) -> None:
    """Each of three nodes in turn is frozen by SIGSTOP until others lead its partitions, and wakes as one that still thinks it leads. Then
    it is made their leader again by a preferred election."""
    async with scene_with(kafka_at=together(nodes)) as scene:
        await scene.goes_on(2)
        moved = 0
        before = await end_offsets(scene.kafka.address, scene.road.definition.topics)
        for number, node in enumerate(nodes, 1):
            others = together([other for other in nodes if other is not node])
            assert node.process
            moved += sum(leader == number for leader in (await leaders(scene, scene.kafka)).values())
            node.process.pause()
            try:
                await until(partial(left, scene, others, number), 40)
            finally:
                node.process.resume()
            await until(partial(in_sync, scene, others), 40)
            moved += await elected(scene)
        after = await end_offsets(scene.kafka.address, scene.road.definition.topics)
        scene.mended()
        assert moved >= 2 * len(after)
        scene.proves(f"{moved} times a partition got another leader, while {sum(after.values()) - sum(before.values()):,} records came")
        await scene.healed()


async def elected(scene: Scene) -> int:
    """Give each partition its preferred leader; how many got another one."""
    before = await leaders(scene, scene.kafka)
    admin = AdminClient({"bootstrap.servers": scene.kafka.address})
    partitions = [TopicPartition(*at) for at in before]
    answer = admin.elect_leaders(ElectionType.PREFERRED, partitions)
    await asyncio.to_thread(answer.result, 20)
    after = await leaders(scene, scene.kafka)
    return sum(after[at] != leader for at, leader in before.items())


async def described(scene: Scene, by: Server) -> Mapping[At, Mapping[str, Any]]:
    """What these brokers say of each partition. Raises NotReadyError where the one that was asked does not answer."""
    admin = AIOKafkaAdminClient(bootstrap_servers=by.address, request_timeout_ms=3000)
    try:
        await admin.start()
        topics = await admin.describe_topics(list(scene.road.definition.topics))
    except KafkaError as silent:
        raise NotReadyError(repr(silent)) from silent
    finally:
        await admin.close()
    return {(topic["topic"], partition["partition"]): partition for topic in topics for partition in topic["partitions"]}


async def leaders(scene: Scene, by: Server) -> Mapping[At, int]:
    return {at: partition["leader"] for at, partition in (await described(scene, by)).items()}


async def left(scene: Scene, by: Server, number: int) -> None:
    """Raises NotReadyError until every partition has a leader, and the node is none."""
    found = set((await leaders(scene, by)).values())
    if number in found or -1 in found:
        raise NotReadyError(f"led by {found}")


async def in_sync(scene: Scene, by: Server) -> None:
    """Raises NotReadyError until every replica has everything."""
    if short := {at: p["isr"] for at, p in (await described(scene, by)).items() if len(p["isr"]) < len(p["replicas"])}:
        raise NotReadyError(f"in sync: {short}")
