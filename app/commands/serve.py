"""`viewgate serve`: the gateway, in one process, until it is told to end."""

import asyncio
import errno
import gc
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
import uvicorn
import uvloop

from app.cli import CommandError
from app.server import gateway
from app.settings import Settings, read_settings
from app.short_road import protocol
from app.telemetry import set_up_logs
from app.views import definition_of

GRACE_SECONDS = 10
# after SIGTERM a connection ends with its next answer, and never under a request: one that is idle for longer than this its client
# has given up by itself (5 s is what most keep an idle one for)
LINGER_SECONDS, LOOK_SECONDS = 6.0, 0.05
# longer than what is before a gateway keeps a connection: who closes first never closes under a request
KEEP_ALIVE_SECONDS = 75
# of Python's threads
SWITCH_SECONDS = 0.0001


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen at, instead of VIEWGATE_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen at, instead of VIEWGATE_PORT; 0: any free one.", min=0, max=65535)
    ] = None,
) -> None:
    """Answer GraphQL queries at /graphql until SIGTERM or Ctrl-C; requests under way are finished first.

    After SIGTERM it answers on until every connection has ended, each with its next answer, for 6 seconds at most.

    \b
    Examples:
      viewgate serve
      VIEWGATE_MODE=sql viewgate serve --port 8001
    """
    settings = read_settings()
    set_up_logs(settings.log_level)
    listening = _listen(host or settings.host, settings.port if port is None else port)
    # what another thread learns of new documents waits for the answers, and not they for that
    sys.setswitchinterval(SWITCH_SECONDS)
    uvloop.run(_serve(settings, listening))


async def _serve(settings: Settings, listening: socket.socket) -> None:
    async with gateway(settings, definition_of(settings)) as app:
        # logs as set up; no line per request: /metrics counts them
        config = uvicorn.Config(
            app,
            http=protocol(app.state.short, settings.limit_body_bytes, settings.request_timeout_seconds),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        # what is there now stays: Python need not look through it again
        gc.collect()
        gc.freeze()
        address, port = listening.getsockname()[:2]
        typer.echo(f"Serving GraphQL in mode {settings.mode} at http://{address}:{port}/graphql", err=True)
        await _Server(config).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends when it is told to, and no more: uvicorn would send itself the signal again, and die of it before clients are closed."""

    _lingering: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and self._lingering is None:
            self._lingering = asyncio.get_running_loop().create_task(self._linger())
        else:
            super().handle_exit(sig, frame)

    async def _linger(self) -> None:
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        for _ in range(int(LINGER_SECONDS / LOOK_SECONDS)):
            if not self.server_state.connections:
                break
            await asyncio.sleep(LOOK_SECONDS)
        super().handle_exit(signal.SIGTERM, None)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"Port {port} of {host} is taken. Stop what listens there, or choose another with --port.") from error
        raise CommandError(f"Cannot listen at {host}, port {port}: {error.strerror}. Choose others with --host and --port.") from error
