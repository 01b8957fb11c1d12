"""One child process: its log, its readiness, its signals, its end. Knows no server by name."""

import asyncio
import os
import random
import shutil
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")


class ServerError(Exception):
    """A server could not be found, started or reached; the message says what to do."""


class NotReadyError(Exception):
    """What a readiness probe raises while the answer is "not yet"."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who a child runs as, when we are root and it refuses to be."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server, and `ready`, which raises NotReadyError until it answers."""

    name: str
    argv: tuple[str, ...]
    log: Path
    ready: Callable[[], Awaitable[object]]
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_seconds: float = 60
    stop_seconds: float = 20


class Process:
    """A server that we started and must end; `restart` keeps its port and its data, for both are in its arguments."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process itself; its own children are found when they are needed."""
        if self._child is None:
            raise ServerError(f"{self.command.name} was never started")
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Started and not yet seen to end."""
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Return when it answers; otherwise leave no process and raise ServerError with the last lines of its log."""
        with self.command.log.open("ab") as log:
            self._child = await _spawn(self.command.argv, self.command.account, log.fileno())
        try:
            await until(self._ready, self.command.start_seconds)
        except TimeoutError as late:
            await self.kill()
            raise self._failure(f"did not answer within {self.command.start_seconds:.0f} s ({late})") from late
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if not self.alive:
            return
        self.resume()
        _send(self.command.stop_signal, [self.pid])
        try:
            async with asyncio.timeout(self.command.stop_seconds):
                await self._wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL it with its children; return when all are gone, so that a restart finds port and data free."""
        family = self._signal(signal.SIGKILL)
        await self._wait()
        await until(lambda: _gone(family), 10)

    async def restart(self) -> None:
        """Start it again with the same arguments, stopping it first if it runs."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Freeze it with its children: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> list[int]:
        family = [self.pid, *children(self.pid)] if self.alive else []
        _send(number, family)
        return family

    async def _ready(self) -> object:
        if not self.alive:
            raise self._failure("ended while it was starting")
        return await self.command.ready()

    async def _wait(self) -> None:
        if self._child is not None:
            await self._child.wait()

    def _failure(self, what: str) -> ServerError:
        return ServerError(f"{self.command.name} {what}; the end of {self.command.log}:\n{last_lines(self.command.log.read_bytes())}")


async def run(*argv: str, account: Account | None = None, seconds: float = 60) -> str:
    """The output of a tool that must succeed; it too dies with us."""
    child = await _spawn(argv, account, asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(seconds):
            output, _ = await child.communicate()
    except TimeoutError as late:
        raise ServerError(f"{argv[0]} did not end within {seconds:.0f} s") from late
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if child.returncode:
        raise ServerError(f"{' '.join(argv[:4])} … failed ({child.returncode}):\n{last_lines(output)}")
    return output.decode(errors="replace")


async def until(probe: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Try again while `probe` raises NotReadyError; TimeoutError carries its last words."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            await probe()
        except NotReadyError as not_yet:
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(str(not_yet)) from not_yet
            await asyncio.sleep(0.05)
        else:
            return


def free_port() -> int:
    """Below the range that outgoing connections use: a client that retries while its server is down would take such a port."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def last_lines(output: bytes, count: int = 15) -> str:
    """The end of what a process said, for an error message."""
    return "\n".join(output.decode(errors="replace").strip().splitlines()[-count:])


async def _spawn(argv: tuple[str, ...], account: Account | None, output: int) -> asyncio.subprocess.Process:
    # Its death is tied to the thread that forks it, so the event loop must run in a thread that lasts. A script and
    # not preexec_fn: Python between fork and exec can deadlock beside librdkafka's threads. A session of its own
    # keeps the terminal's Ctrl-C from it.
    program = shutil.which(argv[0])
    if program is None:
        raise ServerError(f"{argv[0]} is not on PATH")
    who = (str(account.uid), str(account.gid)) if account else ("", "")
    child = (sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), *who)
    return await asyncio.create_subprocess_exec(
        *child,
        program,
        *argv[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
    )


def _send(number: signal.Signals, pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def children(pid: int) -> list[int]:
    """Of a process, those that live. Linux only: none elsewhere."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, tasks.read_text().split())
        except OSError:
            continue
    return found


async def _gone(pids: list[int]) -> None:
    left = [pid for pid in pids if lives(pid)]
    if left:
        raise NotReadyError(f"still there: {left}")


def lives(pid: int) -> bool:
    """Whether it still runs; one that ended and was not yet waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
