"""Kafka Connect in one JVM, with Debezium's PostgreSQL connector: exactly once, or at least once. What a connector is told: debezium.py."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from demo.servers import maven
from demo.servers.debezium import Connector
from demo.servers.kafka import emptied, java_17, java_options
from demo.servers.process import Command, NotReadyError, Process, ServerError, free_port, until
from demo.servers.server import Say

WORKER = """\
bootstrap.servers={kafka}
plugin.path={plugins}
plugin.discovery=service_load
listeners=http://127.0.0.1:{port}
key.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter=org.apache.kafka.connect.json.JsonConverter
value.converter.schemas.enable=false
topic.creation.enable=true
"""
# the last four: a worker that was killed is let in again when its old session ends, and reads its topics when the transaction that it left
# open is aborted, after a minute if nothing else is said
EXACTLY_ONCE = """\
exactly.once.source.support=enabled
group.id={group}
config.storage.topic={group}.config
config.storage.replication.factor=1
offset.storage.topic={group}.offsets
offset.storage.replication.factor=1
offset.storage.partitions=5
status.storage.topic={group}.status
status.storage.replication.factor=1
session.timeout.ms=6000
heartbeat.interval.ms=2000
scheduled.rebalance.max.delay.ms=0
producer.transaction.timeout.ms=10000
"""
AT_LEAST_ONCE = """\
offset.storage.file.filename={offsets}
offset.flush.interval.ms=1000
"""
# a worker that comes back answers nothing until its group has let it in, which on a busy machine takes a minute now and then
START_SECONDS = 180.0
MAIN = "org.apache.kafka.connect.cli.Connect"


class Connect:
    """A worker that answers this client, and the connectors that were given to it. It keeps its offsets through a kill."""

    def __init__(self, process: Process, client: httpx.AsyncClient, *, exactly_once: bool) -> None:
        self.process, self.exactly_once = process, exactly_once
        self._client = client
        self._connectors: dict[str, Connector] = {}

    async def capture(self, connector: Connector, seconds: float = START_SECONDS) -> None:
        """Make the connector, or tell it anew; return when it runs with its task. Raises ServerError, with what Connect says of it."""
        await self._put(connector, seconds)
        self._connectors[connector.name] = connector
        try:
            await until(partial(self._runs, connector.name), seconds)
        except TimeoutError as late:
            raise ServerError(f"connector {connector.name} does not run: {late}\nThe log is {self.process.command.log}.") from late

    async def remove(self, name: str) -> None:
        """End the connector, if there is one. Its offsets stay, and so do slot and publication: made again under its name, it goes on."""
        self._connectors.pop(name, None)
        await until(partial(self._removed, name), 30)

    async def forget(self, name: str) -> None:
        """End a connector and lose its offsets, as a worker does whose offsets topic is gone."""
        await until(partial(self._answers_to, "PUT", f"/connectors/{name}/stop"), 30)
        await until(partial(self._answers_to, "DELETE", f"/connectors/{name}/offsets"), 30)
        await self.remove(name)

    async def status(self, name: str) -> Mapping[str, Any]:
        """What Connect says of a connector. Raises NotReadyError where it does not know it, or does not answer."""
        found: Mapping[str, Any] = (await self._answers_to("GET", f"/connectors/{name}/status")).json()
        return found

    async def revive(self, name: str) -> bool:
        """Start again what has failed of a connector, as an operator of a cluster does. Whether all of it ran.

        Raises NotReadyError where it cannot be asked.
        """
        status = await self.status(name)
        states = {part["state"] for part in [status["connector"], *status["tasks"]]}
        if "FAILED" in states:
            await self._answers_to("POST", f"/connectors/{name}/restart?includeTasks=true&onlyFailed=true")
        return states == {"RUNNING"}

    async def kill(self) -> None:
        """SIGKILL."""
        await self.process.kill()

    async def restart(self, seconds: float = START_SECONDS) -> None:
        """Start the worker again, with its connectors: at least once it remembers none."""
        await self.process.restart()
        for connector in list(self._connectors.values()):
            await self.capture(connector, seconds)

    async def _put(self, connector: Connector, seconds: float) -> None:
        words = dict(connector.config)
        if self.exactly_once:
            words |= {"exactly.once.support": "required", "transaction.boundary": "poll"}
        await until(partial(self._taken, connector.name, words), seconds)

    async def _taken(self, name: str, words: Mapping[str, str]) -> None:
        answer = await self._send("PUT", f"/connectors/{name}/config", words)
        if answer.status_code == 400:
            raise ServerError(f"connector {name} is refused: {answer.json()['message']}")
        # 409 while the group rebalances
        if not answer.is_success:
            raise NotReadyError(f"{answer.status_code} {answer.text}")

    async def _runs(self, name: str) -> None:
        status = await self.status(name)
        parts = [status["connector"], *status["tasks"]]
        if len(parts) < 2 or any(part["state"] != "RUNNING" for part in parts):
            raise NotReadyError("; ".join(map(_told, parts)))

    async def _removed(self, name: str) -> None:
        answer = await self._send("DELETE", f"/connectors/{name}")
        if answer.status_code != 404:
            raise NotReadyError(f"connector {name} is still there: {answer.status_code} {answer.text}")

    async def _answers_to(self, method: str, path: str, body: Mapping[str, str] | None = None) -> httpx.Response:
        """Raises NotReadyError for anything but a success."""
        answer = await self._send(method, path, body)
        if not answer.is_success:
            raise NotReadyError(f"{answer.status_code} {answer.text}")
        return answer

    async def _send(self, method: str, path: str, body: Mapping[str, str] | None = None) -> httpx.Response:
        try:
            return await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise NotReadyError(f"Kafka Connect does not answer: {error!r}") from error


@asynccontextmanager
async def start(kafka: str, folder: Path, cache: Path, *, exactly_once: bool = True, say: Say) -> AsyncIterator[Connect]:
    """A worker beside the Kafka at this address, its files in `folder/connect`. Raises MissingError, as `find` does.

    exactly_once: distributed with exactly-once source support; else standalone, which sends a stretch again after a kill.
    """
    java, libs, plugins = await find(cache, say)
    home = _made(folder / "connect")
    port = free_port()
    worker = home / "worker.properties"
    worker.write_text(_worker(kafka, plugins, home, port, exactly_once=exactly_once))
    main = MAIN + ("Distributed" if exactly_once else "Standalone")
    argv = (java, "-Xmx512m", *java_options(libs, emptied(home / "tmp")), main, str(worker))
    url = f"http://127.0.0.1:{port}"
    # one for all that is asked: to make one takes 20 ms of the processor
    async with httpx.AsyncClient(trust_env=False, timeout=30, base_url=url) as client:
        process = Process(Command("connect", argv, folder / "connect.log", partial(_answers, client), start_seconds=120))
        process.command.log.write_bytes(b"")
        await process.start()
        say(f"connect: Debezium {maven.debezium_version()}, {'exactly' if exactly_once else 'at least'} once, at {url}")
        try:
            yield Connect(process, client, exactly_once=exactly_once)
        finally:
            await process.stop()


async def find(cache: Path, say: Say) -> tuple[str, Path, Path]:
    """Java, Kafka's jars and Debezium; the first time the two are downloaded. Raises MissingError: there is no stand-in from PyPI."""
    return await java_17(), await maven.jars(cache, say), await maven.debezium(cache, say)


def _made(home: Path) -> Path:
    home.mkdir(parents=True, exist_ok=True)
    return home.resolve()


def _worker(kafka: str, plugins: Path, home: Path, port: int, *, exactly_once: bool) -> str:
    kind = EXACTLY_ONCE if exactly_once else AT_LEAST_ONCE
    return (WORKER + kind).format(kafka=kafka, plugins=plugins, port=port, group="connect", offsets=home / "offsets")


async def _answers(client: httpx.AsyncClient) -> None:
    try:
        answer = await client.get("/connectors", timeout=5)
    except httpx.HTTPError as error:
        raise NotReadyError(repr(error)) from error
    if not answer.is_success:
        raise NotReadyError(answer.text)


def _told(part: Mapping[str, Any]) -> str:
    """State and causes of a connector or a task, without its stack."""
    causes = [line for line in part.get("trace", "").splitlines() if not re.match(r"\s+(at |\.\.\.)", line)]
    return " ".join([part["state"], *causes])
