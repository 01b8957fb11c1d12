"""The road of a request: from HTTP to a mode and a query, through that mode's loader, to headers and bytes."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import structlog
from cross_web import HTTPException
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from strawberry.asgi import GraphQL
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.types.execution import ExecutionResult

from app import errors, headers
from app.clients import Clients, open_clients
from app.headers import BadHeaderError
from app.pages.routes import Pages
from app.settings import Settings
from app.telemetry import GatewayMetrics, PlanMetrics
from loaders.cache_aside import CacheAsideLoader
from loaders.fallback import FallbackLoader
from loaders.sql import SqlLoader
from loaders.view import ViewLoader
from schema import graphql
from schema.definition import Definition
from schema.loader import Loader, LoadError, Mode

MODE = headers.MODE
Loaders = Mapping[Mode, Loader]

log = structlog.stdlib.get_logger()


@asynccontextmanager
async def gateway(settings: Settings, definition: Definition) -> AsyncIterator[Starlette]:
    """The gateway as an ASGI app, with clients that are closed at the end. Starts without Redis and PostgreSQL."""
    metrics = GatewayMetrics()
    async with open_clients(settings) as clients:
        yield application(settings, definition, loaders(settings, definition, clients, metrics), metrics)


def loaders(settings: Settings, definition: Definition, clients: Clients, metrics: GatewayMetrics) -> dict[Mode, Loader]:
    """The loader of each mode; the fallback, if one is set, stands behind the view."""
    sql = SqlLoader(clients.postgres, definition)
    cache_aside = CacheAsideLoader(clients.cache, sql, definition, settings.cache_ttl_seconds, metrics)
    view = ViewLoader(clients.redis, definition, wait_seconds=settings.after_wait_seconds)
    made: dict[Mode, Loader] = {"view": view, "cache-aside": cache_aside, "sql": sql}
    if settings.fallback != "none":
        made["view"] = FallbackLoader(made["view"], made[settings.fallback], settings.fallback_limit, settings.fallback_wait_seconds)
    return made


def application(settings: Settings, definition: Definition, loaders: Loaders, metrics: GatewayMetrics) -> Starlette:
    """The ASGI app over given loaders: /graphql, /livez, /readyz, /metrics, and the pages if they are set."""

    async def livez(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(request: Request) -> Response:
        try:
            await loaders[settings.mode].ready()
        except LoadError as error:
            log.warning("not_ready", code=error.code, reason=str(error), cause=repr(error.__cause__))
            return PlainTextResponse(f"{error.code}: {error}\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def exposed(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    endpoint = Endpoint(graphql.build(definition, settings.limits), loaders, settings, metrics)
    pages = Pages(definition, settings, loaders) if settings.pages else None
    routes = [
        # an ASGI app and no function: Starlette would make a second Request of each
        Route("/graphql", pages.graphql(endpoint) if pages else endpoint),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", exposed),
        *(pages.routes() if pages else ()),
    ]
    return Starlette(routes=routes, exception_handlers={Exception: _crashed, 404: _unknown})


class Endpoint(GraphQL[graphql.Reading, None]):
    """/graphql, by POST and GET. Every response names its mode: the one that answered, or else the one that was asked for."""

    def __init__(self, schema: graphql.ViewSchema, loaders: Loaders, settings: Settings, metrics: GatewayMetrics) -> None:
        super().__init__(schema, graphql_ide=None, subscription_protocols=(), multipart_uploads_enabled=False)
        self._schema = schema
        self._loaders = loaders
        self._settings = settings
        self._metrics = metrics
        metrics.registry.register(PlanMetrics(schema.plans))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = Request(scope, receive)
        request.state.mode, request.state.outcome = self._settings.mode, "BAD_REQUEST"
        try:
            response = await self._respond(request)
        except HTTPException as refused:
            response = _refusal("BAD_REQUEST", refused.reason, refused.status_code)
        except BadHeaderError as error:
            request.state.outcome = error.code
            response = _refusal(error.code, str(error), 400)
        except ClientDisconnect:
            return
        response.headers[MODE] = request.state.mode
        self._metrics.requests.labels(request.state.mode, request.state.outcome).inc()
        self._metrics.seconds.labels(request.state.mode).observe(time.perf_counter() - started)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        request.state.mode = self._mode(request)
        reading = graphql.Reading(self._loaders[request.state.mode], headers.after(request.headers))
        request.state.reading = reading if headers.wants_extensions(request.headers) else None
        response = await self.run(request, context=reading)
        if reading.rows is not None:
            request.state.mode = reading.rows.mode
            response.headers.update(headers.told(reading.rows))
            if reading.rows.fallback:
                self._metrics.fallbacks.labels(reading.rows.fallback).inc()
        return response

    def _mode(self, request: Request) -> Mode:
        wanted = request.headers.get(MODE)
        if wanted is None:
            return self._settings.mode
        if not self._settings.allow_mode_header:
            raise BadHeaderError(
                "BAD_MODE", f"This gateway chooses the mode itself; send no {MODE} header, or set VIEWGATE_ALLOW_MODE_HEADER=true."
            )
        mode = next((mode for mode in self._loaders if mode == wanted), None)
        if mode is None:
            raise BadHeaderError("BAD_MODE", f"{MODE}: {wanted!r} is no mode; there are {', '.join(self._loaders)}.")
        return mode

    async def execute_single(self, *, context: graphql.Reading, request_data: GraphQLRequestData, **rest: Any) -> ExecutionResult:  # type: ignore[override]  # it is called by these names
        planned = None
        if request_data.query:
            planned = await self._schema.planned(request_data.query, request_data.variables or {}, context, request_data.operation_name)
        self._metrics.operations.labels("executor" if planned is None else "plan").inc()
        return planned or await super().execute_single(context=context, request_data=request_data, **rest)

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        failed = errors.formatted(result)
        request.state.outcome = errors.code_of(failed)
        answer: GraphQLHTTPResponse = {"data": result.data, "errors": [*failed]} if failed else {"data": result.data}
        if request.state.reading is not None:
            answer["extensions"] = {"viewgate": headers.extensions(request.state.mode, request.state.reading.rows)}
        return answer

    def should_render_graphql_ide(self, request: object) -> bool:
        return False

    def decode_json(self, data: str | bytes) -> object:
        try:
            # neither a text nor a number can be a request or its variables; null is as good as nothing
            return msgspec.json.decode(data, type=dict[str, object] | list[dict[str, object]] | None) or {}
        except msgspec.DecodeError as error:
            raise HTTPException(400, f"The request is not JSON as GraphQL over HTTP has it: {error}.") from error

    def encode_json(self, data: object) -> bytes:
        return msgspec.json.encode(data)


def _refusal(code: str, message: str, status: int) -> Response:
    return Response(msgspec.json.encode(errors.failure(code, message)), status, media_type="application/json")


async def _unknown(request: Request, error: Exception) -> Response:
    return _refusal("NOT_FOUND", f"There is nothing at {request.url.path}; GraphQL is at /graphql.", 404)


async def _crashed(request: Request, error: Exception) -> Response:
    return _refusal("INTERNAL", errors.masked(error), 500)
