"""uvicorn's HTTP with bounds on what one connection may do: uvicorn takes heads however long they are and however slowly they come, all
the requests that a client sends without waiting for answers, and waits for as long as a client reads no answer.
"""

import asyncio
from collections.abc import Sized
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# beside the URL
HEADER_BYTES, HEADERS = 16_384, 100
# of a body, after its answer: many a client reads that when it has sent all
UNWANTED_BYTES = 16_777_216
LINGER_SECONDS = 1.0
# requests that wait for the answer to the one before
BEHIND = 64
_REFUSED = b"HTTP/1.1 %b\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class TooManyBehindError(Exception):
    """Ends the parsing of what has come."""


class _Flow(FlowControl):
    """Reads no more while requests wait that have been read. behind: uvicorn's queue of them."""

    def __init__(self, transport: asyncio.Transport, behind: Sized) -> None:
        super().__init__(transport)
        self._behind = behind

    def resume_reading(self) -> None:
        if not self._behind:
            super().resume_reading()


class LimitedProtocol(HttpToolsProtocol):
    """Ends a connection that goes too far.

    most_bytes: of a head. seconds: until a head must be there, and for how long an answer may be left unread.
    """

    most_bytes = HEADER_BYTES
    seconds = 10.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._waiting: asyncio.TimerHandle | None = None
        self._in_head, self._bytes = False, 0
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        # most heads come whole, and cost no more than this
        if self._in_head:
            self._bytes += len(data)
            if self._bytes > self.most_bytes:
                self._refuse(b"431 Request Header Fields Too Large")
            elif self._waiting is None:
                self._wait()
        elif self._waiting is not None:
            self._wait_no_more()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= BEHIND:
            self.transport.abort()
            raise TooManyBehindError
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
