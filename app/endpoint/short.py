"""The short road: what is asked by POST, plain and known, is answered without a task of asyncio and without ASGI's messages.

It knows successes only. Whatever is out of the ordinary, before or after the view was read, goes the whole road from its beginning.
"""

import time
from collections.abc import Callable
from functools import partial

from app import cors, headers
from app.accept import JSON, encoding, media_type
from app.endpoint.answer import ENCODINGS, PAYS_BYTES, content_type, packed
from app.endpoint.asked import Asked, Head, posted
from app.endpoint.documents import Named
from app.settings import Settings
from app.telemetry import GatewayMetrics
from app.trial import Part, Trial
from schema.graphql import ViewSchema
from schema.loader import ImmediateLoader, Loader, Rows
from schema.plan import Bound

# the lines of a head of status 200, and the body; None: it must go the whole road
Done = Callable[[tuple[bytes, bytes] | None], None]
TYPE, EXPERIMENT = JSON.encode(), headers.EXPERIMENT.encode()
# ask for more than the plain answer
MORE = frozenset(name.encode() for name in (*headers.ASKED, "expect", "upgrade", "content-encoding", "transfer-encoding"))


class Short:
    """loader: of the mode that the settings name. trial: what it gives another mode, or cannot tell yet, goes the whole road."""

    def __init__(
        self, schema: ViewSchema, loader: Loader, documents: Named, settings: Settings, metrics: GatewayMetrics, trial: Trial
    ) -> None:
        self._plans, self._documents, self._most_bytes = schema.plans, documents, settings.limit_body_bytes
        # who asks how often is counted on the whole road
        self._loader = loader if isinstance(loader, ImmediateLoader) and not settings.rate_limit else None
        self._metrics, self._trial = metrics, trial
        self._cors = cors.lines(settings.cors_origins)
        self._lines: tuple[str, str | None, int, bytes] = "", None, -1, b""

    def begin(self, head: Head, text: bytes, done: Done) -> bool:
        """text: the body. False: it must go the whole road, and `done` is not called."""
        if self._loader is None or head.get(b"content-type") != TYPE or not MORE.isdisjoint(head):
            return False
        started = time.perf_counter()
        media = media_type(head.get(b"accept", b"").decode("latin-1"))
        if media is None or len(text) > self._most_bytes:
            return False
        try:
            asked = posted(text)
            if isinstance(asked, list):
                return False
            plan = self._plans.known(self._documents.text(asked), asked.operation_name)
            bound = plan.bind(asked.variables or {}) if plan else None
            if bound is None or not bound.reads:
                return False
            return (
                self._loader.begin(bound.reads, partial(self._read, started, asked, bound, media, head, done))
                if self._trial.running is None
                else self._begin_part(bound, head, partial(self._read, started, asked, bound, media, head), done)
            )
        except Exception:  # noqa: BLE001 - the whole road meets it again, and tells it
            return False

    def _begin_part(self, bound: Bound, head: Head, read: Callable[[Done, Rows | None], None], done: Done) -> bool:
        """The same in an experiment."""
        part = self._trial.running.short_part(head, bound.reads) if self._trial.running else None
        if part is None or self._loader is None:
            return False
        return self._loader.begin(bound.reads, lambda rows: read(partial(_answered, part, bound, rows, done), rows))

    def _read(self, started: float, asked: Asked, bound: Bound, media: str, head: Head, done: Done, rows: Rows | None) -> None:
        answer = None
        try:
            if rows is not None and (data := bound.render(rows.rows)) is not None:
                answer = self._answer(asked, media, head, rows, data)
                self._metrics.operated("plan")
                self._metrics.answered(rows.mode, "ok", time.perf_counter() - started)
        except Exception:  # noqa: BLE001 - as before
            answer = None
        done(answer)

    def _answer(self, asked: Asked, media: str, head: Head, rows: Rows, data: bytes) -> tuple[bytes, bytes]:
        if asked.extensions:
            self._documents.keep(asked)
        body, lines = b'{"data":%b}' % data, self._head(media, rows) + self._cors(head.get(b"origin"))
        if len(body) >= PAYS_BYTES and (name := encoding(head.get(b"accept-encoding", b"").decode("latin-1"), ENCODINGS)) is not None:
            body, lines = packed(name, body), b"%bcontent-encoding: %b\r\n" % (lines, name.encode())
        return lines, body

    def _head(self, media: str, rows: Rows) -> bytes:
        """Changes once a second, with what the rows are as of."""
        known_media, generation, as_of_ms, lines = self._lines
        if known_media != media or generation != rows.generation or as_of_ms != rows.as_of_ms:
            told = [content_type(media), *headers.encoded(rows), (headers.MODE.encode(), rows.mode.encode())]
            lines = b"".join([b"%b: %b\r\n" % pair for pair in told])
            self._lines = media, rows.generation, rows.as_of_ms, lines
        return lines


def _answered(part: Part, bound: Bound, rows: Rows | None, done: Done, answer: tuple[bytes, bytes] | None) -> None:
    told = part.running.told
    if answer is None or rows is None:
        done(None)
        return
    done(answer if told is None else (b"%b%b: %b\r\n" % (answer[0], EXPERIMENT, told.encode()), answer[1]))
    part.took(bound.reads, rows)
    part.running.answered(part)
