"""The short road from a socket to the endpoint and back: one call when a request is whole, one write of its answer."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.connection_limits import HEADER_BYTES, LimitedProtocol
from app.endpoint.short import Short

PATH, METHOD, VERSION = b"/graphql", b"POST", "1.1"


class _Waiting:
    """A request on the short road; stands where uvicorn has a cycle of ASGI. keep_alive: uvicorn clears it when the server ends."""

    # it is set when the connection is lost, and nobody waits for it
    message_event = asyncio.Event()
    disconnected = False

    def __init__(self) -> None:
        self.response_complete, self.keep_alive = True, True
        self.scope: Any = None
        self.body = b""


class ShortRoadProtocol(LimitedProtocol):
    """A POST to /graphql that comes in one piece is first offered to `short`; what that does not take goes to the app.

    Only one request of a connection is on the short road, and none behind others.
    """

    short: Short

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # the body so far of a request that may be taken; and the one that was
        self._held: bytes | None = None
        self._waiting_here = _Waiting()
        self._resting: asyncio.TimerHandle | None = None
        self._rests_since = 0.0
        self._default: Any = None
        self._default_lines = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if self._resting is not None:
            self._resting.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._held is not None:
            self._let_go()

    def begin_request(self) -> None:
        free = self.cycle is None or self.cycle.response_complete
        if free and self.url == PATH and self.parser.get_method() == METHOD and not self.flow.write_paused:
            self._held = b""
        else:
            super().begin_request()

    def on_body(self, body: bytes) -> None:
        if self._held:
            # in chunks, of which there may be thousands
            self._let_go()
        if self._held is None:
            super().on_body(body)
        else:
            self._held = body

    def on_message_complete(self) -> None:
        if self._held is None:
            super().on_message_complete()
        elif self._taken(self._held):
            self._held = None
        else:
            self._let_go()
            super().on_message_complete()

    def _let_go(self) -> None:
        """To the app, as uvicorn does it."""
        held, self._held = self._held, None
        if not self.transport.is_closing():
            super().begin_request()
            if held:
                super().on_body(held)

    def _taken(self, body: bytes) -> bool:
        parser, waiting = self.parser, self._waiting_here
        if parser.get_http_version() != VERSION or not parser.should_keep_alive() or self._lines() is None:
            return False
        if not self.short.begin(dict(self.headers), body, self._done):
            return False
        waiting.scope, waiting.body, waiting.response_complete, waiting.keep_alive = self.scope, body, False, True
        self.cycle = waiting  # type: ignore[assignment]
        return True

    def _done(self, answer: tuple[bytes, bytes] | None) -> None:
        waiting, lines = self._waiting_here, self._lines()
        waiting.response_complete = True
        if self.transport.is_closing():
            return
        if answer is None or lines is None or not waiting.keep_alive:
            self._go_whole_road(waiting)
            return
        head, body = answer
        self.transport.write(b"HTTP/1.1 200 OK\r\n%b%bcontent-length: %d\r\n\r\n%b" % (lines, head, len(body), body))
        if self.pipeline:
            self.on_response_complete()
        else:
            self._rest()

    def _rest(self) -> None:
        """Until the next request, if one comes in time: one timer for many requests, where uvicorn has one for each."""
        self.server_state.total_requests += 1
        self._rests_since = self.loop.time()
        if self._resting is None:
            self._resting = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        self._resting = None
        left = self._rests_since + self.timeout_keep_alive - self.loop.time()
        if left > 0 or self._in_head or not self.cycle.response_complete:
            self._resting = self.loop.call_later(max(left, 1.0), self._look)
        elif self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.transport.close()

    def _lines(self) -> bytes | None:
        """Those of every answer's head, as uvicorn renews them each second. None: they tell the client to connect anew."""
        default = self.server_state.default_headers
        if default is not self._default:
            self._default = default
            self._default_lines = b"".join([b"%b: %b\r\n" % pair for pair in default])
            self._closing = any(name == b"connection" for name, _ in default)
        return None if self._closing else self._default_lines

    def _go_whole_road(self, waiting: _Waiting) -> None:
        scope = waiting.scope
        scope |= {"method": METHOD.decode(), "path": PATH.decode(), "raw_path": PATH, "query_string": b""}
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=waiting.keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.body += waiting.body
        cycle.more_body = False
        cycle.message_event.set()
        if self.cycle is waiting:  # type: ignore[comparison-overlap]  # it stood in for one
            self.cycle = cycle
        self._start_asgi_task(cycle, self.app)


def protocol(short: Short, url_bytes: int, seconds: float) -> type[ShortRoadProtocol]:
    """For uvicorn's `http`. url_bytes: what a URL may have; seconds: how long a head may take."""
    return type("Protocol", (ShortRoadProtocol,), {"short": short, "most_bytes": HEADER_BYTES + url_bytes, "seconds": seconds})
