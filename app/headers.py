"""The headers of ours: what a request may ask by them, and what an answer tells, also in `extensions`. docs/errors.md has the codes."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.datastructures import Headers

from schema.loader import Mode, Rows
from schema.positions import MalformedToken, Token, TokenUnsupported, tokens

MODE, FALLBACK, GENERATION, AS_OF = "viewgate-mode", "viewgate-fallback", "viewgate-generation", "viewgate-as-of"
AFTER, EXTENSIONS = "viewgate-after", "viewgate-extensions"
# who asks, for a split of the traffic, and which experiment has given the mode
CLIENT, EXPERIMENT = "viewgate-client", "viewgate-experiment"
ASKED, TOLD = (MODE, AFTER, EXTENSIONS), (MODE, FALLBACK, GENERATION, AS_OF, EXPERIMENT)
_SWITCH = {"true": "true", "1": "true", "plan": "plan", "reads": "reads", "false": "", "0": ""}


class BadHeaderError(Exception):
    """A header asks for what is not to be had; the message says what is. code: for the client's program."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def after(asked: Headers) -> Sequence[Token]:
    """The writes that the answer must have. Raises BadHeaderError."""
    found = asked.getlist(AFTER)
    try:
        return tokens(",".join(found)) if found else ()
    except MalformedToken as error:
        raise BadHeaderError("BAD_AFTER", f"{AFTER}: {error}") from error
    except TokenUnsupported as error:
        raise BadHeaderError("AFTER_UNSUPPORTED", f"{AFTER}: {error}") from error


def wanted_extensions(asked: Headers) -> str:
    """Which are to be in the body: "" none, "true" what the headers say; "plan" what it reads too, "reads" what it asked.

    Raises BadHeaderError.
    """
    wanted = asked.get(EXTENSIONS, "false")
    if wanted.lower() not in _SWITCH:
        raise BadHeaderError("BAD_REQUEST", f"{EXTENSIONS}: {wanted!r} is none of true, false, plan and reads.")
    return _SWITCH[wanted.lower()]


def told(rows: Rows) -> dict[str, str]:
    """What an answer's headers say, but for its mode."""
    headers = {}
    if rows.fallback:
        headers[FALLBACK] = rows.fallback
    if rows.generation:
        headers[GENERATION] = rows.generation
    if rows.as_of_ms:
        headers[AS_OF] = _moment(rows.as_of_ms)
    return headers


def encoded(rows: Rows) -> list[tuple[bytes, bytes]]:
    """The same as ASGI has it."""
    return [(name.encode(), value.encode()) for name, value in told(rows).items()]


def extensions(mode: Mode, rows: Rows | None) -> dict[str, object]:
    """What the headers tell, in a response's body. ageMs: how long ago asOf was, by this machine's clock. None: not known, or none read."""
    if rows is None:
        return {"mode": mode, "generation": None, "asOf": None, "ageMs": None, "fallback": None}
    as_of = _moment(rows.as_of_ms) if rows.as_of_ms else None
    age_ms = max(0, time.time_ns() // 1_000_000 - rows.as_of_ms) if rows.as_of_ms else None
    return {"mode": rows.mode, "generation": rows.generation, "asOf": as_of, "ageMs": age_ms, "fallback": rows.fallback}


def _moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
