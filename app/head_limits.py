"""uvicorn's HTTP with a bound on a request's head, which uvicorn takes however long it is and however slowly it comes."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# beside the URL
HEADER_BYTES, HEADERS = 16_384, 100
# of a body, after its answer: many a client reads that when it has sent all
UNWANTED_BYTES = 16_777_216
LINGER_SECONDS = 1.0
_REFUSED = b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class LimitedProtocol(HttpToolsProtocol):
    """Ends a connection whose request has too long a head, or one that is not there in time. most_bytes, seconds: of a head."""

    most_bytes = HEADER_BYTES
    seconds = 10.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: asyncio.TimerHandle | None = None
        self._in_head, self._bytes = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # most heads come whole, and cost no more than this
        if self._in_head:
            self._bytes += len(data)
            if self._bytes > self.most_bytes:
                self._refuse(b"431 Request Header Fields Too Large")
            elif self._waiting is None:
                self._wait()
        elif self._waiting is not None:
            self._wait_no_more()

    def on_message_begin(self) -> None:
        self._in_head, self._bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.headers) > HEADERS:
            self._refuse(b"431 Request Header Fields Too Large")
        else:
            self.begin_request()

    def begin_request(self) -> None:
        """Its head is here."""
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.transport.is_closing():
            return
        super().on_body(body)
        # the answer did not wait for its end, and nobody wants more of it
        if self.cycle.response_complete:
            self._bytes += len(body)
            if self._bytes > UNWANTED_BYTES:
                # closed at once, it might never read its answer
                self.transport.pause_reading()
                self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def on_message_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_message_complete()

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.seconds, self._late)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _late(self) -> None:
        if self._in_head:
            self._refuse(b"408 Request Timeout")
        elif self.cycle is None:
            # nothing has come at all
            self.transport.close()

    def _refuse(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(_REFUSED % status)
            self.transport.close()
