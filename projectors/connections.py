"""What aiokafka makes of a connection that has gone under its hands."""

from functools import wraps
from typing import Any

from aiokafka.errors import KafkaConnectionError


def steadied(client: Any) -> None:
    """Have a client of aiokafka take a connection that is closed for one that is broken, which it opens again.

    Writing to it raises RuntimeError by uvloop, where asyncio's own loop says nothing. aiokafka takes that for a mistake of its own: a
    consumer or a producer whose broker died at that moment would give up for good.
    """
    send = client.send

    @wraps(send)
    async def sent(*request: Any, **options: Any) -> Any:
        try:
            return await send(*request, **options)
        except RuntimeError as closed:
            raise KafkaConnectionError(f"the connection is closed: {closed}") from closed

    client.send = sent
