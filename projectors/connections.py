"""What aiokafka makes of a connection that has gone under its hands."""

from functools import wraps
from typing import Any

from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError


def steadied(client: Any) -> None:
    """Have a client of aiokafka take a connection that is closed for one that is broken, which it opens again.

    Writing to it raises RuntimeError by uvloop, where asyncio's own loop says nothing. aiokafka takes that for a mistake of its own: a
    consumer or a producer whose broker died at that moment would give up for good, and so would the task that looks for other brokers.
    """
    get = client._get_conn

    @wraps(get)
    async def got(*node: Any, **options: Any) -> Any:
        connection = await get(*node, **options)
        if connection is not None and "send" not in vars(connection):
            connection.send = _sending(connection)
        return connection

    client._get_conn = got


def _sending(connection: Any) -> Any:
    send = connection.send

    @wraps(send)
    def sent(*request: Any, **options: Any) -> Any:
        try:
            return send(*request, **options)
        except KafkaError:
            # these are RuntimeErrors too
            raise
        except RuntimeError as closed:
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"the connection is closed: {closed}") from closed

    return sent
