"""What a client's Accept headers prefer. Knows no page and no answer."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from starlette.datastructures import Headers

HTML, JSON, RESPONSE = "text/html", "application/json", "application/graphql-response+json"
WILD = ("application/*", "*/*")
# the newest of them are remembered, where they are not longer than this
REMEMBERED, LONGEST = 256, 512


def prefers_html(headers: Headers) -> bool:
    """Whether HTML is asked for by its name, and more than GraphQL's own types are: by a browser, but by no `Accept: */*`."""
    weights = _weights(_all(headers, "accept"))
    return weights.get(HTML, 0.0) > max(weights.get(name, 0.0) for name in (JSON, RESPONSE))


def accepts_gzip(headers: Headers) -> bool:
    return _weights(_all(headers, "accept-encoding")).get("gzip", 0.0) > 0


def media_type(accept: str) -> str | None:
    """Of an answer of GraphQL's. JSON unless the newer type is asked for by its name, and no less; None: neither is accepted."""
    return _remembered_type(accept) if len(accept) <= LONGEST else _media_type(accept)


def encoding(accept_encoding: str, known: Sequence[str]) -> str | None:
    """The first of those known that is accepted as much as any other of them; None: none is."""
    return _remembered_encoding(accept_encoding, known) if len(accept_encoding) <= LONGEST else None


def _media_type(accept: str) -> str | None:
    weights = _weights(accept)
    if not accept.strip():
        return JSON
    wild = next((weights[name] for name in WILD if name in weights), 0.0)
    json, response = (weights.get(name, wild) for name in (JSON, RESPONSE))
    if not max(json, response):
        return None
    return RESPONSE if response > json or (response == json and RESPONSE in weights) else JSON


def _encoding(accept_encoding: str, known: Sequence[str]) -> str | None:
    weights = _weights(accept_encoding)
    best = max(known, key=lambda name: weights.get(name, 0.0))
    return best if weights.get(best, 0.0) > 0 else None


_remembered_type = lru_cache(REMEMBERED)(_media_type)
_remembered_encoding = lru_cache(REMEMBERED)(_encoding)


def _all(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name))


def _weights(header: str) -> Mapping[str, float]:
    """The q of each thing that a header names: 1 where it says none, 0 where it is malformed."""
    entries = (entry.partition(";") for entry in header.lower().split(","))
    return {named.strip(): _q(rest) for named, _, rest in entries}


def parameters(text: str) -> Mapping[str, str]:
    """What follows a header's value after its first semicolon, by name."""
    return dict(parameter.strip().partition("=")[::2] for parameter in text.split(";"))


def _q(text: str) -> float:
    try:
        return float(parameters(text).get("q", "1"))
    except ValueError:
        return 0.0
