"""Checks of what needs no server: settings, this Python; and of the gateway that may listen here."""

import asyncio
import importlib.metadata
import importlib.util
import ipaddress
import platform
from dataclasses import dataclass

from redis.utils import HIREDIS_AVAILABLE

from app.doctor.checks import Checks, Finding
from app.settings import Settings, misspelt
from schema.definition import Definition

COMPILED = ("hiredis", "httptools", "uvloop")
LIBRARIES = ("aiokafka", "asyncpg", "redis", "starlette", "strawberry-graphql", "uvicorn")
READ_AT_MOST = 65_536


@dataclass(frozen=True, slots=True)
class Asked:
    """What is under examination here: the settings, and the view definition that they name."""

    settings: Settings
    definition: Definition


SETTINGS: Checks[Asked] = Checks("settings", (), ())
GATEWAY: Checks[Asked] = Checks("gateway", (), (OSError,))


@SETTINGS.check(
    "spelling",
    "every VIEWGATE_ variable, in the environment and in `.env`",
    wrong="one is no setting, so it changes nothing",
    mend="Write it as `viewgate settings` lists it, or remove it.",
)
async def _spelling(asked: Asked) -> Finding:
    wrong = misspelt()
    return Finding("wrong", " ".join(wrong)) if wrong else Finding("ok", "every VIEWGATE_ variable is a setting")


@SETTINGS.check("view", "the view definition; one that cannot be read ends the command with exit code 2")
async def _view(asked: Asked) -> Finding:
    definition = asked.definition
    return Finding("ok", f"{asked.settings.view}: {len(definition.fields)} fields, from {', '.join(definition.topics)}")


@SETTINGS.check("mode", "how requests are answered, and by what where the view cannot")
async def _mode(asked: Asked) -> Finding:
    mode, fallback = asked.settings.mode, asked.settings.fallback
    if mode != "view":
        return Finding("ok", mode)
    return Finding("ok", f"view, then {fallback}" if fallback != "none" else "view, without a fallback: what it cannot answer is an error")


@SETTINGS.check(
    "mode header",
    "whether a request may choose its mode, and who can send one",
    warning="it may, at an address that others reach: anyone may then have each request counted with SQL",
    mend="`VIEWGATE_ALLOW_MODE_HEADER=false`, or `VIEWGATE_HOST=127.0.0.1` behind a proxy that drops the header.",
)
async def _header(asked: Asked) -> Finding:
    settings = asked.settings
    if not settings.allow_mode_header:
        return Finding("ok", "not allowed")
    return Finding("ok" if _is_own(settings.host) else "warning", f"allowed, at {settings.host}")


@SETTINGS.check(
    "python",
    "Python and the libraries; whether the parts in C can be loaded",
    wrong=f"one of {', '.join(COMPILED)} cannot be, or redis-py does not use hiredis",
    mend="Install viewgate again, with all that it needs.",
)
async def _python(asked: Asked) -> Finding:
    missing = [name for name in COMPILED if importlib.util.find_spec(name) is None]
    if missing:
        return Finding("wrong", f"cannot be loaded: {', '.join(missing)}")
    if not HIREDIS_AVAILABLE:
        return Finding("wrong", f"redis-py does not use hiredis {importlib.metadata.version('hiredis')}")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in sorted((*COMPILED, *LIBRARIES))]
    return Finding("ok", f"Python {platform.python_version()}, {', '.join(versions)}")


@GATEWAY.check(
    "ready",
    "`/readyz` at `VIEWGATE_HOST` and `VIEWGATE_PORT`, if something listens there",
    warning="what listens there is no viewgate",
    wrong="it is not ready, or does not answer",
    mend="Mend what is wrong above; its log has more.",
)
async def _ready(asked: Asked) -> Finding:
    host, port = _reached_at(asked.settings.host), asked.settings.port
    if not port:
        return Finding("skipped", "VIEWGATE_PORT is 0: it may listen anywhere")
    try:
        status, body = await _get(host, port, "/readyz")
    except ConnectionRefusedError:
        return Finding("skipped", f"nothing listens at {host}:{port}")
    if status == 200 and body == "ready":
        return Finding("ok", f"{host}:{port} is ready")
    if status == 503 and ": " in body:
        return Finding("wrong", f"{host}:{port} is not ready: {body}")
    found = f"what listens at {host}:{port} is no viewgate: it answers /readyz with {status or 'no HTTP'}"
    return Finding("warning", found, "Stop it, or give the gateway another port: `VIEWGATE_PORT`.")


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached_at(host: str) -> str:
    """Where a gateway that listens at all addresses is reached."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is opened there


async def _get(host: str, port: int, path: str) -> tuple[int, str]:
    """Status, 0 where the answer is no HTTP, and body. Raises OSError."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < READ_AT_MOST and (more := await reader.read(READ_AT_MOST)):
            answer += more
    finally:
        writer.transport.abort()
    head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
    words = head.split()
    status = int(words[1]) if len(words) > 1 and words[0].startswith("HTTP/") and words[1].isdigit() else 0
    return status, body.strip()
