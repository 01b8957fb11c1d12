"""Jars from Maven Central into the cache: whole or not at all. Knows the POM beside it, not what the jars do."""

import hashlib
import re
import shutil
import tarfile
import tempfile
from pathlib import Path

from demo.servers.process import ServerError, run
from demo.servers.server import MissingError, Say

POM = Path(__file__).with_name("pom.xml")
# the parent of Debezium's POM is not on Maven Central: newer versions of this plugin refuse to copy such an artifact
COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy"
# an address that never answers must end in the embedded broker, not in a demo that hangs: both transports' time limits
LIMITS = (
    "-Dmaven.wagon.http.connectionTimeout=10000",
    "-Dmaven.wagon.rto=30000",
    "-Daether.connector.connectTimeout=10000",
    "-Daether.connector.requestTimeout=30000",
)


async def jars(cache: Path, say: Say) -> Path:
    """The folder of Kafka's jars, downloaded at the first call; MissingError says how the download failed."""
    return await jars_of(POM, cache, f"kafka: downloading Apache Kafka {kafka_version()} (55 MB, once)", say)


async def jars_of(pom: Path, cache: Path, what: str, say: Say) -> Path:
    """The folder of what a POM needs to run, of Kafka's version; downloaded and failing as `jars`. what: said before a download."""
    libs = _place(pom, cache)
    if not libs.is_dir():
        say(f"{what} into {libs}")
        libs.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=libs.parent, prefix="download-") as scratch:
            _keep(await _download(pom, Path(scratch)), libs)
    return libs


async def debezium(cache: Path, say: Say) -> Path:
    """The folder of Debezium's PostgreSQL connector, a plugin of Kafka Connect; downloaded and failing as `jars`."""
    plugins = _place_of_debezium(cache)
    if not plugins.is_dir():
        say(f"connect: downloading Debezium {debezium_version()} (5 MB, once) into {plugins}")
        plugins.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=plugins.parent, prefix="download-") as scratch:
            _keep(await _download_plugin(Path(scratch)), plugins)
    return plugins


def _place(pom: Path, cache: Path) -> Path:
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:8]
    return cache.resolve() / "kafka" / f"{kafka_version()}-{digest}"


def _place_of_debezium(cache: Path) -> Path:
    return cache.resolve() / "kafka" / f"debezium-{debezium_version()}"


def kafka_version() -> str:
    """As the POM says."""
    return _property("kafka.version")


def debezium_version() -> str:
    """As the POM says."""
    return _property("debezium.version")


def _property(name: str) -> str:
    found = re.search(rf"<{name}>(.+?)</{name}>", POM.read_text())
    if found is None:
        raise ServerError(f"{POM} names no {name}")
    return found[1]


async def goal(name: str, *options: str, repository: Path, seconds: float = 240) -> None:
    """Run one Maven goal, twice if need be, with a local repository of our own: nothing is written to the user's."""
    binary = shutil.which("mvn")
    if binary is None:
        raise MissingError("no mvn on PATH; install Maven (Debian: apt-get install maven)")
    command = (binary, "-q", "-B", name, f"-Dmaven.repo.local={repository}", *LIMITS, *options)
    try:
        await run(*command, seconds=seconds)
    except ServerError:
        await _again(command, seconds)


async def _again(command: tuple[str, ...], seconds: float) -> None:
    try:
        await run(*command, seconds=seconds)
    except ServerError as failed:
        raise MissingError(f"{failed}\nIs Maven Central, or a mirror in Maven's settings.xml, within reach?") from failed


async def _download(pom: Path, scratch: Path) -> Path:
    shutil.copy(pom, scratch / "pom.xml")
    libs = scratch / "libs"
    # fails where a checksum does not match
    options = (
        "-C",
        "-f",
        str(scratch / "pom.xml"),
        f"-Dkafka.version={kafka_version()}",
        "-DincludeScope=runtime",
        f"-DoutputDirectory={libs}",
    )
    await goal("dependency:copy-dependencies", *options, repository=scratch / "repository")
    return libs


async def _download_plugin(scratch: Path) -> Path:
    name = "debezium-connector-postgres"
    options = (f"-Dartifact=io.debezium:{name}:{debezium_version()}:tar.gz:plugin", f"-DoutputDirectory={scratch}")
    await goal(COPY, *options, repository=scratch / "repository")
    packed = scratch / f"{name}-{debezium_version()}-plugin.tar.gz"
    # by a digest of our own: not every mirror has Maven's of this file
    if (digest := hashlib.sha256(packed.read_bytes()).hexdigest()) != _property("debezium.sha256"):
        raise MissingError(f"{name} {debezium_version()} came with SHA-256 {digest}, which is not what {POM.name} says: ask another mirror")
    with tarfile.open(packed) as archive:
        archive.extractall(scratch / "plugins", filter="data")
    return scratch / "plugins"


def _keep(downloaded: Path, libs: Path) -> None:
    try:
        downloaded.rename(libs)
    except OSError:
        # another process may have been faster; what it put there is as whole as ours
        if not libs.is_dir():
            raise
