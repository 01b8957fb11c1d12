"""The endpoint as an ASGI app: from a request to what is asked, through a mode's loader, to an answer."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types.execution import ExecutionResult, PreExecutionError

from app import errors, headers
from app.accept import JSON, RESPONSE, media_type
from app.endpoint.answer import VARY, Answer, Header, Malformed, Refused, RequestError, compressed, content_type, tagged
from app.endpoint.asked import Asked, Head, body, check_preflight, got, posted
from app.endpoint.documents import Named
from app.endpoint.rates import Rates
from app.headers import BadHeaderError
from app.settings import Settings
from app.telemetry import GatewayMetrics
from app.trial import Part, Trial
from schema import graphql, notes
from schema.loader import Loader, Mode, Overloaded, Rows
from schema.positions import Token

Loaders = Mapping[Mode, Loader]
MODE, EXPERIMENT = headers.MODE.encode(), headers.EXPERIMENT.encode()
ASKING = {headers.EXTENSIONS.encode(), headers.AFTER.encode()}
METHODS = b"GET, HEAD, OPTIONS, POST"
BODILESS = {204, 304}
# of the draft of 2026: executed with errors, and what is no request that could be executed
PARTIAL, UNPROCESSABLE = 294, 422


class Call:
    """A request as far as it has come. mode: that answered, or else that was to. outcome: for the metrics. media: of its answer.

    read: whether all of it has come. part: its part in an experiment.
    """

    __slots__ = ("head", "media", "mode", "outcome", "part", "read", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, mode: Mode) -> None:
        self.scope, self.receive = scope, receive
        self.head: Head = dict(scope["headers"])
        self.mode, self.media, self.outcome, self.read = mode, JSON, "BAD_REQUEST", False
        self.part: Part | None = None

    def text(self, name: bytes) -> str:
        return self.head.get(name, b"").decode("latin-1")


class Told(NamedTuple):
    """What one operation came to. body: a GraphQL response. executed: whether there is `data` in it. code: "ok", or of its first error."""

    body: bytes
    executed: bool
    code: str
    rows: Rows | None


class Endpoint:
    """/graphql, by POST and GET. Every response names its mode."""

    def __init__(
        self, schema: graphql.ViewSchema, loaders: Loaders, documents: Named, settings: Settings, metrics: GatewayMetrics, trial: Trial
    ) -> None:
        self._schema, self._loaders, self._documents = schema, loaders, documents
        self._settings, self._metrics, self._trial = settings, metrics, trial
        self._rates = Rates(settings.rate_limit, time.monotonic) if settings.rate_limit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        call = Call(scope, receive, self._settings.mode)
        try:
            async with asyncio.timeout(self._settings.request_timeout_seconds) as limit:
                answer = await self._answer(call)
        except Refused as refused:
            if isinstance(refused, Malformed) and self._draft(call.media):
                refused.status = UNPROCESSABLE
            call.outcome, answer = refused.code, refused.answer(call.media)
        except BadHeaderError as error:
            call.outcome, answer = error.code, Refused(400, error.code, str(error)).answer(call.media)
        except ClientDisconnect:
            return
        except TimeoutError:
            if not limit.expired():
                raise
            call.outcome, answer = "TIMEOUT", self._late(call)
        self._metrics.answered(call.mode, call.outcome, time.perf_counter() - started)
        head = [*answer.headers, (MODE, call.mode.encode())]
        if call.part is not None and call.part.exposed and (told := call.part.running.told) is not None:
            head.append((EXPERIMENT, told.encode()))
        if answer.status not in BODILESS:
            head.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": head})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
        if call.part is not None:
            call.part.running.answered(call.part)

    async def _answer(self, call: Call) -> Answer:
        method = call.scope["method"]
        if method == "OPTIONS":
            call.outcome = "ok"
            return Answer(204, b"", [(b"allow", METHODS)])
        if method not in {"GET", "HEAD", "POST"}:
            raise Refused(405, "BAD_REQUEST", "GraphQL is asked by POST or GET.", (b"allow", METHODS))
        media = media_type(call.text(b"accept"))
        if media is None:
            raise Refused(406, "BAD_REQUEST", f"An answer is {JSON} or {RESPONSE}: accept one of them.")
        call.media = media
        call.mode = self._mode(call.head)
        if (running := self._trial.running) is not None and (part := running.part(call.head, _client(call.scope))) is not None:
            call.part, call.mode = part, part.mode
        self._check_rate(call.scope)
        if method == "POST":
            text = await body(call.receive, call.head, self._settings.limit_body_bytes)
            call.read = True
            asked = posted(text)
            answer = await (self._batch(call, asked) if isinstance(asked, list) else self._single(call, asked))
        else:
            call.read = True
            if self._settings.csrf:
                check_preflight(call.head)
            answer = self._cached(call, await self._single(call, got(call.scope["query_string"], self._settings.limit_body_bytes)))
        return compressed(answer, call.text(b"accept-encoding"))

    def _mode(self, head: Head) -> Mode:
        wanted = head.get(MODE)
        if wanted is None:
            return self._settings.mode
        if not self._settings.allow_mode_header:
            raise BadHeaderError(
                "BAD_MODE", f"This gateway chooses the mode itself; send no {headers.MODE} header, or set VIEWGATE_ALLOW_MODE_HEADER=true."
            )
        text = wanted.decode("latin-1")
        mode = next((mode for mode in self._loaders if mode == text), None)
        if mode is None:
            raise BadHeaderError("BAD_MODE", f"{headers.MODE}: {text!r} is no mode; there are {', '.join(self._loaders)}.")
        return mode

    async def _single(self, call: Call, asked: Asked) -> Answer:
        told = await self._told(call, asked)
        call.outcome = told.code
        head = [content_type(call.media), *self._row_headers(call, told.rows)]
        if told.code == Overloaded.code:
            # a balancer or a client that knows no GraphQL shall know, too
            return Answer(503, told.body, [*head, (b"retry-after", b"1")])
        return Answer(self._status(call, told), told.body, head)

    async def _batch(self, call: Call, asked: Sequence[Asked]) -> Answer:
        most = self._settings.limit_batch
        if not 0 < len(asked) <= most:
            allowed = f"at most {most} operations, and not none" if most else "no operations in an array"
            raise Refused(400, "BAD_BATCH", f"This gateway takes {allowed}; VIEWGATE_LIMIT_BATCH says how many.")
        answers = await asyncio.gather(*[self._told(call, one) for one in asked])
        call.outcome = next((told.code for told in answers if told.code != "ok"), "ok")
        oldest = min((told.rows for told in answers if told.rows), key=lambda rows: rows.as_of_ms, default=None)
        head = [content_type(call.media), *self._row_headers(call, oldest)]
        return Answer(200, b"[%b]" % b",".join([told.body for told in answers]), head)

    async def _told(self, call: Call, asked: Asked) -> Told:
        wanted = ""
        after: Sequence[Token] = ()
        if call.head.keys() & ASKING:
            asking = Headers(scope=call.scope)
            wanted, after = headers.wanted_extensions(asking), headers.after(asking)
            if wanted == "reads" and not self._settings.allow_mode_header:
                raise BadHeaderError(
                    "BAD_REQUEST", f"{headers.EXTENSIONS}: reads names keys and tables, so it is for VIEWGATE_ALLOW_MODE_HEADER=true alone."
                )
        reading = graphql.Reading(call.part or self._loaders[call.mode], after)
        try:
            text = self._documents.text(asked)
            with notes.taken() if wanted == "reads" else nullcontext(()) as asked_for:
                result = await self._executed(text, asked, reading)
        except RequestError as error:
            return Told(msgspec.json.encode(errors.failure(error.code, str(error))), False, error.code, None)
        if call.part is not None:
            call.mode = call.part.mode
        self._take(call.scope, len(reading.rows.rows) if reading.rows else 0)
        failed = errors.formatted(result)
        # what a variable is refused for is told before anything is executed
        executed = not isinstance(result, PreExecutionError) and (result.data is not None or any("path" in error for error in failed))
        if executed:
            self._documents.keep(asked)
        answer: dict[str, Any] = {"data": result.data} if executed else {}
        if failed:
            answer["errors"] = failed
        if wanted:
            extensions = headers.extensions(call.mode, reading.rows)
            if wanted == "plan":
                extensions["plan"] = self._schema.explained(text, asked.variables or {}, asked.operation_name)
            if wanted == "reads":
                extensions["reads"] = asked_for
            answer["extensions"] = {"viewgate": extensions}
        return Told(msgspec.json.encode(answer), executed, errors.code_of(failed), reading.rows)

    async def _executed(self, text: str, asked: Asked, reading: graphql.Reading) -> ExecutionResult:
        variables, name = asked.variables or {}, asked.operation_name
        planned = await self._schema.planned(text, variables, reading, name)
        self._metrics.operated("executor" if planned is None else "plan")
        if planned is not None:
            return planned
        try:
            return await self._schema.executed(text, variables, reading, name)
        except CannotGetOperationTypeError as unknown:
            sentence = f"There is no operation {name!r} in the document." if name else "There is no operation in the document."
            raise RequestError("OPERATION_RESOLUTION_FAILURE", sentence) from unknown

    def _status(self, call: Call, told: Told) -> int:
        if told.executed:
            return PARTIAL if told.code != "ok" and self._draft(call.media) else 200
        if call.media == JSON:
            # older clients look into the body of nothing else
            return 200
        if told.code == "INTERNAL":
            return 500
        return UNPROCESSABLE if self._draft(call.media) and told.code != "GRAPHQL_PARSE_FAILED" else 400

    def _draft(self, media: str) -> bool:
        return self._settings.draft_status_codes and media == RESPONSE

    def _row_headers(self, call: Call, rows: Rows | None) -> list[Header]:
        if rows is None:
            return []
        call.mode = rows.mode
        if rows.fallback:
            self._metrics.fallbacks.labels(rows.fallback).inc()
        return headers.encoded(rows)

    def _cached(self, call: Call, answer: Answer) -> Answer:
        """With what caches want to know: how long it may be kept, and by what it is known."""
        whole = call.outcome == "ok"
        keep = self._settings.cache_control if whole else "no-store"
        answer = Answer(answer.status, answer.body, [*answer.headers, (b"cache-control", keep.encode()), (b"vary", VARY)])
        return tagged(answer, call.text(b"if-none-match")) if whole else answer

    def _check_rate(self, scope: Scope) -> None:
        if self._rates and (seconds := self._rates.wait_seconds(_client(scope))):
            after = math.ceil(seconds)
            raise Refused(
                429,
                "RATE_LIMITED",
                f"You have asked for more than this gateway allows; try again in {after} s.",
                (b"retry-after", b"%d" % after),
            )
        self._take(scope, 1)

    def _take(self, scope: Scope, cost: float) -> None:
        if self._rates:
            self._rates.take(_client(scope), cost)

    def _late(self, call: Call) -> Answer:
        seconds = self._settings.request_timeout_seconds
        if call.read:
            return Refused(503, "TIMEOUT", f"There was no answer within {seconds:g} s; ask for less, or try again.").answer(call.media)
        return Refused(408, "TIMEOUT", f"The request did not come within {seconds:g} s.").answer(call.media)


def _client(scope: Scope) -> str:
    """Its address; uvicorn puts there what a proxy that is trusted tells (FORWARDED_ALLOW_IPS)."""
    return scope["client"][0] if scope.get("client") else ""
