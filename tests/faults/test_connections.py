"""A connection to Kafka that is closed under the hands of whoever writes to it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import ListGroupsRequest

from demo.servers import kafka
from demo.servers.account import scratch
from projectors.connections import steadied
from tests.conftest import CACHE


@asynccontextmanager
async def closed_under_hands(*, steady: bool) -> AsyncIterator[AIOKafkaClient]:
    """A client whose only connection uvloop has closed, and who has not noticed yet: the broker died with a request unread."""
    with scratch() as folder:
        async with kafka.start(folder, CACHE, prefer="installed", say=print) as own:
            assert own.process is not None
            client = AIOKafkaClient(bootstrap_servers=own.address)
            await client.bootstrap()
            if steady:
                steadied(client)
            try:
                assert await client.force_metadata_update()
                (connection,) = client._conns.values()
                assert connection._reader is not None
                own.process.pause()
                await asyncio.sleep(0.2)
                unread = asyncio.ensure_future(connection.send(ListGroupsRequest()))
                await asyncio.sleep(0.2)
                os.kill(own.process.pid, signal.SIGKILL)
                async with asyncio.timeout(20):
                    # the step before aiokafka's own reader hears of it
                    while connection._reader.exception() is None:  # noqa: ASYNC110
                        await asyncio.sleep(0)
                yield client
                with suppress(KafkaError):
                    await unread
            finally:
                await client.close()


@pytest.mark.usefixtures("apache_kafka_at")  # says whether there is one
@pytest.mark.parametrize("asked", ["by send", "by the look for brokers"])
@pytest.mark.parametrize("steady", [False, True])
def test_a_connection_that_is_closed_is_a_broker_that_is_away(asked: str, *, steady: bool) -> None:
    async def seen() -> str:
        async with closed_under_hands(steady=steady) as client:
            try:
                if asked == "by send":
                    await client.send(client.get_random_node(), ListGroupsRequest())
                else:
                    # what its own task does, which ends where this raises
                    return f"told {await client._metadata_update(client.cluster, set())}"
            except RuntimeError as raised:
                return type(raised).__name__
        return "answered"

    away = "KafkaConnectionError" if asked == "by send" else "told False"
    assert uvloop.run(seen()) == (away if steady else "RuntimeError")
