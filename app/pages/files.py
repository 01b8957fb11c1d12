"""Contents as ASGI apps: compressed once, with the headers that all of them have. Knows nothing of what is in them."""

import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.accept import accepts_gzip

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
SECURITY = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".svg": "image/svg+xml"}
ALWAYS_ASK, FOR_GOOD = "no-cache", "public, max-age=31536000, immutable"


class File:
    """An ASGI app that answers with one content. suffix: what its type goes by; packed: the content in gzip's form; policy: CSP's."""

    def __init__(self, suffix: str, packed: bytes, cache: str = ALWAYS_ASK, vary: str = "accept-encoding", policy: str = POLICY) -> None:
        self._packed = packed
        self._type = TYPES[suffix]
        self._headers = SECURITY | {"content-security-policy": policy, "cache-control": cache, "vary": vary}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if accepts_gzip(Headers(scope=scope)):
            response = Response(self._packed, headers=self._headers | {"content-encoding": "gzip"}, media_type=self._type)
        else:
            response = Response(self._plain, headers=self._headers, media_type=self._type)
        await response(scope, receive, send)

    @cached_property
    def _plain(self) -> bytes:
        return gzip.decompress(self._packed)


class Assets:
    """The files of static/ and vendored/ as an ASGI app, each under a name that bears a hash of its content."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        self._urls: dict[str, str] = {}
        for path in sorted((HERE / "static").iterdir()):
            self._add(path.name, path.read_bytes(), packed(path.read_bytes()))
        for path in sorted((HERE / "vendored").glob("*.gz")):
            self._add(path.stem, path.read_bytes(), path.read_bytes())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = self._files.get(scope["path_params"]["name"])
        if file is None:
            raise HTTPException(404)
        await file(scope, receive, send)

    @property
    def urls(self) -> Mapping[str, str]:
        """By the file's name as a template writes it: react_dom_production_min_js."""
        return self._urls

    def _add(self, name: str, stored: bytes, content: bytes) -> None:
        path = Path(name)
        hashed = f"{path.stem}.{hashlib.sha256(stored).hexdigest()[:8]}{path.suffix}"
        self._files[hashed] = File(path.suffix, content, FOR_GOOD)
        self._urls[re.sub(r"\W", "_", name)] = f"/assets/{hashed}"


def packed(content: bytes) -> bytes:
    """In gzip's form, the same for the same content."""
    return gzip.compress(content, mtime=0)
