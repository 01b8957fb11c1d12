"""The gateway: its clients, the loaders of its modes, and the ASGI app that has its endpoint, its probes and its pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app import cors, errors
from app.clients import Clients, open_clients
from app.endpoint.documents import Named, read_manifest
from app.endpoint.endpoint import Endpoint, Loaders
from app.endpoint.short import Short
from app.experiment_metrics import ExperimentMetrics
from app.experiment_store import ExperimentStore
from app.experiment_watch import watched
from app.pages.routes import Pages
from app.settings import Settings
from app.settled import settled
from app.shadow import Shadows
from app.telemetry import GatewayMetrics, PlanMetrics
from app.trial import Trial
from loaders.cache import Cache
from loaders.cache_aside import CacheAsideLoader
from loaders.cache_policy import Policy
from loaders.fallback import FallbackLoader
from loaders.sql import SqlLoader
from loaders.view import ViewLoader
from schema import graphql
from schema.definition import Definition
from schema.loader import Loader, LoadError, Mode

log = structlog.stdlib.get_logger()


@asynccontextmanager
async def gateway(settings: Settings, definition: Definition) -> AsyncIterator[Starlette]:
    """The gateway as an ASGI app, with clients that are closed at the end. Starts without Redis and PostgreSQL. Raises SettingsError."""
    metrics = GatewayMetrics()
    async with open_clients(settings) as clients:
        modes = loaders(settings, definition, clients, metrics)
        trial = trial_of(settings, modes, metrics)
        async with watched(ExperimentStore(clients.redis, definition.name), trial, settled(settings, modes)):
            yield application(settings, definition, modes, metrics, trial)


def loaders(settings: Settings, definition: Definition, clients: Clients, metrics: GatewayMetrics) -> dict[Mode, Loader]:
    """The loader of each mode; the fallback, if one is set, stands behind the view."""
    sql = SqlLoader(clients.postgres, definition, settings.sql_wait_seconds)
    metrics.sql_in_flight.labels("sql").set_function(lambda: sql.running)

    def cached(mode: Mode, policy: Policy) -> Loader:
        cache, source = Cache(definition, mode, clients.cache_send, clients.cache_begin, policy.lease), sql.beside()
        metrics.sql_in_flight.labels(mode).set_function(lambda: source.running)
        return CacheAsideLoader(cache, source, definition, policy, metrics, mode)

    aside = Policy(
        ttl=settings.cache_ttl_seconds,
        unknown=settings.cache_unknown_seconds,
        early=settings.cache_early,
        stale_while_revalidate=settings.cache_stale_while_revalidate_seconds,
        stale_if_error=settings.cache_stale_if_error_seconds,
        lease=settings.cache_lease_seconds,
    )
    made: dict[Mode, Loader] = {
        "view": ViewLoader(clients.redis, definition, wait_seconds=settings.after_wait_seconds, send=clients.send, begin=clients.begin),
        "cache-aside": cached("cache-aside", aside),
        "cache-invalidate": cached("cache-invalidate", replace(aside, ttl=settings.cache_invalidate_ttl_seconds)),
        "sql": sql,
    }
    if settings.fallback != "none":
        made["view"] = FallbackLoader(made["view"], made[settings.fallback], settings.fallback_limit, settings.fallback_wait_seconds)
    return made


def trial_of(settings: Settings, loaders: Loaders, metrics: GatewayMetrics) -> Trial:
    """Nothing is on trial yet. A shadow takes nobody's turn at the fallback."""
    alone = {mode: loader.view if isinstance(loader, FallbackLoader) else loader for mode, loader in loaders.items()}
    return Trial(loaders, settings.mode, ExperimentMetrics(metrics.registry), Shadows(alone))


def application(
    settings: Settings, definition: Definition, loaders: Loaders, metrics: GatewayMetrics, trial: Trial | None = None
) -> Starlette:
    """The ASGI app over given loaders: /graphql, /livez, /readyz, /metrics, and the pages if they are set.

    trial: what it answers by; None: nothing is ever on trial.
    `state.short`: the short road to it, for a server that has one (app/short_road.py).
    """

    async def livez(request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(request: Request) -> Response:
        await documents.warm(schema.plans.keep)
        try:
            await loaders[settings.mode].ready()
        except LoadError as error:
            log.warning("not_ready", code=error.code, reason=str(error), cause=repr(error.__cause__))
            return PlainTextResponse(f"{error.code}: {error}\n", status_code=503)
        return PlainTextResponse("ready\n")

    async def exposed(request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    schema = graphql.build(definition, settings.limits)
    documents = Named(read_manifest(settings.trusted_documents), settings.only_trusted_documents, settings.persisted_queries)
    metrics.registry.register(PlanMetrics(schema.plans))
    trial = trial or trial_of(settings, loaders, metrics)
    endpoint = Endpoint(schema, loaders, documents, settings, metrics, trial)
    pages = Pages(definition, settings, loaders) if settings.pages else None
    routes = [
        # an ASGI app and no function: Starlette would make a second Request of each
        Route("/graphql", pages.graphql(endpoint) if pages else endpoint),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", exposed),
        *(pages.routes() if pages else ()),
    ]
    app = Starlette(
        routes=routes, middleware=cors.middleware(settings.cors_origins), exception_handlers={Exception: _crashed, 404: _unknown}
    )
    app.state.short = Short(schema, loaders[settings.mode], documents, settings, metrics, trial)
    return app


def _refusal(code: str, message: str, status: int) -> Response:
    return Response(msgspec.json.encode(errors.failure(code, message)), status, media_type="application/json")


async def _unknown(request: Request, error: Exception) -> Response:
    return _refusal("NOT_FOUND", f"There is nothing at {request.url.path}; GraphQL is at /graphql.", 404)


async def _crashed(request: Request, error: Exception) -> Response:
    return _refusal("INTERNAL", errors.masked(error), 500)
