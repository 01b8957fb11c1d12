"""Which pages of other sites may read answers: Starlette's middleware, and the lines that it would add to a head."""

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from app import headers
from app.endpoint.asked import PREFLIGHT

# origins that are remembered
REMEMBERED = 256


def middleware(origins: str) -> list[Middleware]:
    """origins: joined by commas; "": none may, and there is none."""
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    if not allowed:
        return []
    told = [*headers.TOLD, "etag", "retry-after"]
    return [Middleware(CORSMiddleware, allowed, ["GET", "HEAD", "POST"], ["content-type", *PREFLIGHT], expose_headers=told)]


def lines(origins: str) -> Callable[[bytes | None], bytes]:
    """What the middleware adds to the head of an answer, by the request's origin."""
    made = [one.cls(_nothing, *one.args, **one.kwargs) for one in middleware(origins)]

    @lru_cache(REMEMBERED)
    def added(origin: bytes | None) -> bytes:
        message: dict[str, Any] = {"type": "http.response.start", "headers": []}
        asked = Headers(raw=[] if origin is None else [(b"origin", origin)])
        for one in made:
            # it awaits nothing but what it is given
            with suppress(StopIteration):
                one.send(message, _nothing, asked).send(None)  # type: ignore[attr-defined]  # it is a CORSMiddleware
        return b"".join([b"%b: %b\r\n" % pair for pair in message["headers"]])

    return added


async def _nothing(*_: Any) -> None:
    pass
