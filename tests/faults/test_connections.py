"""A connection to Kafka that is closed under the hands of whoever writes to it."""

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import ListGroupsRequest

from demo.servers.server import Server
from projectors.connections import steadied


@pytest.mark.parametrize("steady", [False, True])
def test_a_connection_that_is_closed_is_opened_again(kafka_at: Server, *, steady: bool) -> None:
    uvloop.run(_closed_once(kafka_at.address, KafkaConnectionError if steady else RuntimeError, steady=steady))


async def _closed_once(bootstrap: str, error: type[Exception], *, steady: bool) -> None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    if steady:
        steadied(client)
    try:
        node = client.get_random_node()
        assert (await client.send(node, ListGroupsRequest())).API_KEY
        (connection,) = [one for (at, _), one in client._conns.items() if at == node]
        connection._writer.transport.abort()
        with pytest.raises(error):
            await client.send(node, ListGroupsRequest())
        if steady:
            assert (await client.send(node, ListGroupsRequest())).API_KEY
    finally:
        await client.close()


@pytest.mark.parametrize("steady", [False, True])
def test_a_client_whose_connection_was_closed_goes_on_learning_of_new_brokers(kafka_at: Server, *, steady: bool) -> None:
    uvloop.run(_learning(kafka_at.address, steady=steady))


async def _learning(bootstrap: str, *, steady: bool) -> None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    if steady:
        steadied(client)
    try:
        assert await client.force_metadata_update()
        for connection in client._conns.values():
            connection._writer.transport.abort()
        # what the client's own task does, at once: later the loop would have told of the end
        asking = client._metadata_update(client.cluster, set())
        if steady:
            assert not await asking
            assert await client.force_metadata_update()
        else:
            with pytest.raises(RuntimeError, match="closed"):
                await asking
    finally:
        await client.close()
