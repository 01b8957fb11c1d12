"""Kafka Streams, exactly once: peers/FollowCounts.java, one thread in a JVM, the counts in RocksDB and a changelog topic."""

import shutil
import struct
from pathlib import Path

from bench.changelog import newest
from bench.contender import Task
from bench.events import Counts
from bench.peers import program
from bench.stopwatch import Run
from demo.servers import kafka, maven
from demo.servers.process import run
from demo.servers.server import MissingError, Say
from schema.user import Follows

SOURCE = Path(program.__file__).with_name("FollowCounts.java")
POM = SOURCE.with_name("pom.xml")
CLASSES = program.CACHE / "kafka" / "follow-counts"
_USER, _COUNTS = struct.Struct(">q"), struct.Struct(">ii")


class KafkaStreams:
    """Reads, repartitions by user, counts, commits."""

    promise = "exactly once (exactly_once_v2, a transaction each 100 ms); in RocksDB and a changelog topic, where nobody else reads them"

    def __init__(self) -> None:
        self._java, self._libs = "", Path()

    async def prepare(self, say: Say) -> None:
        self._java = await kafka.java_17()
        if shutil.which("javac") is None:
            raise MissingError("no javac on PATH; install a JDK, 17 or newer (Debian: apt-get install default-jdk-headless)")
        what = f"bench: downloading Kafka Streams {maven.kafka_version()} (95 MB, once)"
        self._libs = await maven.jars_of(POM, program.CACHE, what, say)
        await run("javac", "-d", str(CLASSES), "-cp", f"{self._libs}/*", str(SOURCE))

    def measure(self, task: Task) -> Run:
        state = task.home / "state"
        (task.home / "tmp").mkdir(parents=True)
        options = "-Xmx1g", *kafka.java_options(self._libs, task.home / "tmp")
        arguments = task.kafka, task.topic_prefix + Follows.source.topic, task.group, str(state), str(task.events)
        return program.run((self._java, *options, "-cp", f"{CLASSES}:{self._libs}/*", "FollowCounts", *arguments))

    async def stored(self, task: Task) -> Counts:
        changelog = await newest(task.kafka, f"{task.group}-counts-changelog")
        found = {_USER.unpack(key)[0]: _COUNTS.unpack(value) for key, value in changelog.items()}
        return {user: (following, followers) for user, (following, followers) in found.items() if following or followers}
