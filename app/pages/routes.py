"""The pages and where they are found. Each is made once, at start, from its template; what it shows is asked for by its script."""

import json
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import asdict
from html import escape
from string import Template

from starlette.datastructures import Headers, QueryParams
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.accept import prefers_html
from app.pages.documents import Documents
from app.pages.examples import every_field, examples, word
from app.pages.files import HERE, POLICY, Assets, File, packed
from app.settings import Settings
from schema.definition import Definition
from schema.loader import Mode

MODES: Mapping[str, str] = {
    "view": "One hash in Redis, kept up to date by projectors.",
    "cache-aside": "A cache in Redis that may be stale, else PostgreSQL.",
    "cache-invalidate": "A cache in Redis that the change stream keeps clean, else PostgreSQL.",
    "sql": "Counted in PostgreSQL for each request.",
}
# what a follow changes; a view without it has no such button
FOLLOWED = "followerCount"
NOT_ALLOWED = "This gateway answers in one mode. VIEWGATE_ALLOW_MODE_HEADER=true lets a request choose."


class Pages:
    """The pages of one gateway. modes: what may be chosen, where the settings allow a choice."""

    def __init__(self, definition: Definition, settings: Settings, modes: Iterable[Mode]) -> None:
        self._definition = definition
        self._settings = settings
        self._modes = tuple(modes)
        self._assets = Assets()
        self._docs = Documents(self._document)

    def graphql(self, endpoint: ASGIApp) -> ASGIApp:
        """The endpoint, behind a page for browsers."""
        page = self._page(
            "graphiql", vary="accept, accept-encoding", switch=self._switch(), told=_data(self._told() | {"examples": self._examples()})
        )
        return _ForBrowsers(page, endpoint)

    def routes(self) -> list[Route]:
        """All but /graphql."""
        return [
            Route("/", self._page("front", name=escape(self._definition.name.lower())), methods=["GET"]),
            Route("/compare", self._compare(), methods=["GET"]),
            Route("/assets/{name}", self._assets, methods=["GET"]),
            Route("/docs/", self._docs, methods=["GET"]),
            Route("/docs/{name}", self._docs, methods=["GET"]),
        ]

    def _compare(self) -> File:
        """The only page that may ask another origin than its own: that of the service which writes, where there is one."""
        fields = ["id", *(field.camel for field in self._definition.fields)]
        asked = {"query": every_field(self._definition), "root": word(self._definition), "fields": fields}
        numeric = self._definition.key_type is int
        writes = self._settings.writes_url if numeric and FOLLOWED in fields else ""
        return self._page(
            "compare",
            policy=POLICY.replace("connect-src 'self'", f"connect-src 'self' {writes}") if writes else POLICY,
            told=_data(self._told() | asked | {"numeric": numeric, "what": MODES, "writes": writes, "followed": FOLLOWED}),
            name=escape(self._definition.name.lower()),
            id="1" if numeric else "",
        )

    def _told(self) -> dict[str, object]:
        """What every script must know."""
        choice = self._settings.allow_mode_header
        return {"mode": self._settings.mode, "modes": self._modes if choice else (self._settings.mode,), "choice": choice}

    def _examples(self) -> list[dict[str, object]]:
        return [asdict(example) for example in examples(self._definition)]

    def _switch(self) -> str:
        """The modes as radio buttons."""
        told = f' disabled title="{escape(NOT_ALLOWED)}"' if not self._settings.allow_mode_header else ""
        return f"<fieldset{told}><legend>mode</legend>{''.join(map(self._button, self._modes))}</fieldset>"

    def _button(self, mode: Mode) -> str:
        checked = " checked" if mode == self._settings.mode else ""
        return f'<label title="{escape(MODES.get(mode, ""))}"><input type="radio" name="mode" value="{mode}"{checked}>{mode}</label>'

    def _document(self, title: str, body: str) -> File:
        return self._page("document", title=escape(title), body=body)

    def _page(self, template: str, /, vary: str = "accept-encoding", policy: str = POLICY, **values: str) -> File:
        text = Template((HERE / "templates" / f"{template}.html").read_text(encoding="utf-8"))
        docs = '<a href="/docs/">docs</a>' if self._docs else ""
        content = packed(text.substitute(self._assets.urls, docs=docs, **values).encode())
        return File(".html", content, vary=vary, policy=policy)


class _ForBrowsers:
    """An ASGI app: the page where HTML is asked for, and no query with it; the endpoint otherwise."""

    def __init__(self, page: ASGIApp, endpoint: ASGIApp) -> None:
        self._page = page
        self._endpoint = endpoint

    # not async: a request that is no GET passes with one comparison
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        app = self._page if scope["method"] == "GET" and _wants_page(scope) else self._endpoint
        return app(scope, receive, send)


def _wants_page(scope: Scope) -> bool:
    return prefers_html(Headers(scope=scope)) and "query" not in QueryParams(scope["query_string"])


def _data(value: object) -> str:
    """JSON that may stand within a script element: nothing in it can end one, or begin a comment."""
    return json.dumps(value).replace("<", r"\u003c")
