"""What a client's Accept headers prefer. Knows no page."""

from starlette.datastructures import Headers

HTML = "text/html"
JSON = ("application/json", "application/graphql-response+json")


def prefers_html(headers: Headers) -> bool:
    """Whether HTML is asked for by its name, and more than GraphQL's own types are: by a browser, but by no `Accept: */*`."""
    weights = _weights(headers, "accept")
    return weights.get(HTML, 0.0) > max(weights.get(name, 0.0) for name in JSON)


def accepts_gzip(headers: Headers) -> bool:
    return _weights(headers, "accept-encoding").get("gzip", 0.0) > 0


def _weights(headers: Headers, name: str) -> dict[str, float]:
    """The q of each thing that a header names: 1 where it says none, 0 where it is malformed."""
    entries = (entry.partition(";") for entry in ",".join(headers.getlist(name)).lower().split(","))
    return {named.strip(): _q(parameters) for named, _, parameters in entries}


def _q(parameters: str) -> float:
    given = dict(parameter.strip().partition("=")[::2] for parameter in parameters.split(";"))
    try:
        return float(given.get("q", "1"))
    except ValueError:
        return 0.0
