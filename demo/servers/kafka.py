"""Kafka: given, Apache Kafka in one JVM, or librdkafka's mock broker; and its topics. Its jars come from maven.py."""

import asyncio
import base64
import re
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from app.topics import make_topics
from demo.servers import maven, server
from demo.servers.process import Command, NotReadyError, Process, ServerError, free_port, run, until
from demo.servers.server import Found, Kind, MissingError, Open, Say, Server, Ways

LOGGING = Path(__file__).with_name("log4j2.properties")
MOCK = Path(__file__).with_name("mock_kafka.py")
CAVEAT = (
    "librdkafka's mock broker. In memory: nothing outlives it, a partition keeps its newest 5 MiB, every topic has 4 partitions, "
    "nothing compacts, and projectors cannot share the partitions. Good for a look, not for a judgement."
)
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
log.retention.ms=-1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# a broker that was killed is let in again when its old session ends: 9 s by default
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""
# of one of three: what comes later is what counts
ONE_OF_THREE = """\
node.id={number}
controller.quorum.voters={voters}
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
"""


@asynccontextmanager
async def start(folder: Path, cache: Path, *, prefer: Kind | None = None, say: Say) -> AsyncIterator[Server]:
    """A Kafka that answers, its data in `folder/kafka`; stopped at the end unless it was given."""
    async with server.running(await find(cache, prefer, say), folder, say) as kafka_server:
        yield kafka_server


async def find(cache: Path, prefer: Kind | None, say: Say) -> Found:
    """The Kafka to start; the first time this downloads its jars into the cache."""
    installed = partial(_installed, cache, say)
    ways = Ways("kafka", "VIEWGATE_KAFKA_BOOTSTRAP", _given, installed, lambda: _open_mock, CAVEAT)
    return await server.choose(ways, prefer, say)


async def create_topics(
    bootstrap: str, topics: Mapping[str, int], config: Mapping[str, str] = MappingProxyType({}), replicas: int = 1
) -> None:
    """Create topic → partitions where missing, and return when every partition has a leader. Raises KafkaError, ServerError."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if refused := await make_topics(admin, topics, replicas, config):
            raise ServerError("; ".join(refused))
        await until(partial(_have_leaders, admin, list(topics)), 30)
    except TimeoutError as late:
        raise ServerError(f"topics on {bootstrap} were not ready within 30 s: {late}") from late
    finally:
        await admin.close()


async def _have_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    described: list[dict[str, Any]] = await admin.describe_topics(names)
    for topic in described:
        partitions = topic["partitions"]
        if topic["error_code"] or not partitions or any(partition["leader"] < 0 for partition in partitions):
            raise NotReadyError(f"{topic['topic']}: {topic}")


async def _given(bootstrap: str) -> Server:
    try:
        await _answers(bootstrap)
    except NotReadyError as silent:
        raise ServerError(f"VIEWGATE_KAFKA_BOOTSTRAP={bootstrap} does not answer ({silent}): start it or unset the variable") from silent
    return Server("kafka", "given", "a Kafka", bootstrap, None)


async def _installed(cache: Path, say: Say) -> Open:
    return partial(_open_jvm, await java_17(), await maven.jars(cache, say))


async def java_17() -> str:
    """The program. Raises MissingError where there is none, or an older one."""
    java = shutil.which("java")
    if java is None:
        raise MissingError("no java on PATH; install Java 17 or newer (Debian: apt-get install default-jre-headless)")
    version = re.search(r'version "(\d+)', await run(java, "-version"))
    if version is None or int(version[1]) < 17:
        raise MissingError(f"{java} is {version[1] if version else 'unknown'}; Kafka needs Java 17 or newer")
    return java


def java_options(libs: Path, temporary: Path) -> tuple[str, ...]:
    """Of every JVM: its classes, how it logs, and where it unpacks its native libraries."""
    logging = f"-Dlog4j2.configurationFile={LOGGING}"
    return "-cp", f"{libs}/*", logging, "-XX:-UsePerfData", f"-Djava.io.tmpdir={temporary}"


async def _open_jvm(java: str, libs: Path, folder: Path) -> Server:
    return await _open_node(java, libs, folder / "kafka", _Node())


@asynccontextmanager
async def start_three(folder: Path, cache: Path, *, say: Say) -> AsyncIterator[Sequence[Server]]:
    """Apache Kafka on three nodes, data in `folder/kafka1` and so on; ended by SIGKILL, for nobody goes on with it. Raises ServerError."""
    java, libs, cluster = await java_17(), await maven.jars(cache, say), _cluster_id()
    nodes = [_Node(number=number, cluster=cluster) for number in (1, 2, 3)]
    voters = ",".join(f"{node.number}@127.0.0.1:{node.controller}" for node in nodes)
    nodes = [replace(node, more=ONE_OF_THREE.format(number=node.number, voters=voters)) for node in nodes]
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as starting:
        opening = [starting.create_task(_open_node(java, libs, folder / f"kafka{node.number}", node)) for node in nodes]
        servers = [await task for task in opening]
        for one in servers:
            stack.push_async_callback(one.process.kill)  # type: ignore[union-attr]  # it was started here
        await until(partial(_answers, servers[0].address, len(nodes)), 30)
        yield servers


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class _Node:
    """more: settings of its own. A cluster outlives its ports: a voter is known by its number, so each start may choose new ones."""

    number: int = 1
    port: int = field(default_factory=free_port)
    controller: int = field(default_factory=free_port)
    cluster: str = field(default_factory=_cluster_id)
    more: str = ""


async def _open_node(java: str, libs: Path, home: Path, node: _Node) -> Server:
    home.mkdir(exist_ok=True)  # noqa: ASYNC240  # at once
    options = java_options(libs, emptied(home / "tmp"))
    if not (home / "data").is_dir():
        await _format((java, "-XX:TieredStopAtLevel=1", *options), home, node)
    settings = _write_settings(home / "server.properties", home / "data", node)
    argv = (java, "-Xmx512m", *options, "kafka.Kafka", str(settings))
    address = f"127.0.0.1:{node.port}"
    command = Command("kafka", argv, home.with_suffix(".log"), partial(_answers, address), start_seconds=120)
    return await server.begin("kafka", "installed", f"Apache Kafka {maven.kafka_version()}", address, Process(command))


def emptied(folder: Path) -> Path:
    """For the native libraries that a JVM unpacks, and leaves behind when it is killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


async def _format(java: tuple[str, ...], home: Path, node: _Node) -> None:
    """Beside its place, then moved there: an interrupted format is never taken for data."""
    fresh = home / "data.new"
    shutil.rmtree(fresh, ignore_errors=True)
    settings = _write_settings(home / "format.properties", fresh, node)
    # "=": an id may begin with a dash
    await run(*java, "kafka.tools.StorageTool", "format", f"--cluster-id={node.cluster}", "-c", str(settings))
    settings.unlink()
    fresh.rename(home / "data")


def _write_settings(path: Path, data: Path, node: _Node) -> Path:
    path.write_text(PROPERTIES.format(port=node.port, controller=node.controller, data=data) + node.more)
    return path


async def _open_mock(folder: Path) -> Server:
    address_file = folder / "kafka.address"
    address_file.unlink(missing_ok=True)
    # -P: the modules beside that script are named like the libraries it uses
    argv = (sys.executable, "-P", str(MOCK), str(address_file))
    command = Command("kafka", argv, folder / "kafka.log", partial(_mock_answers, address_file))
    process = Process(command)
    started = await server.begin("kafka", "embedded", "librdkafka's mock broker", "", process)
    return Server(started.name, started.kind, started.what, address_file.read_text(), process)


async def _mock_answers(address_file: Path) -> None:
    await _answers(_address(address_file))


def _address(written: Path) -> str:
    try:
        return written.read_text()
    except FileNotFoundError as missing:
        raise NotReadyError("no address yet") from missing


async def _accepts(host: str, port: str = "9092") -> None:
    """Asked first, for aiokafka logs an error at each attempt on a closed port."""
    try:
        async with asyncio.timeout(5):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()
    except OSError as error:
        raise NotReadyError(str(error) or "no answer in 5 s") from error


async def _answers(bootstrap: str, nodes: int = 1) -> None:
    await _accepts(*bootstrap.partition(",")[0].rsplit(":", 1))
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=5_000)
    try:
        await client.bootstrap()
        if (found := len(client.cluster.brokers())) < nodes:
            raise NotReadyError(f"{found} of {nodes} nodes")
    except (KafkaError, OSError) as error:
        raise NotReadyError(str(error)) from error
    finally:
        await client.close()
