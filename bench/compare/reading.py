"""Readers in a process of their own, in open or closed loop: `python -m bench.compare.reading`, see generators.py for what goes in and out.

Open loop: a read is due when the schedule says, and timed from then, however long others take. Each connection carries one read at a time;
where none is free a read waits, and its wait counts. Whether this process itself was late is told apart.
"""

import re
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress

import msgspec
from hdrh.histogram import HdrHistogram

from bench.closed_loop import OK, body, is_whole
from bench.compare.population import Population
from bench.read_servers import FIELDS

ONE = f"query User($id: ID!) {{ user(id: $id) {{ {FIELDS} }} }}"
MANY = f"query Users($ids: [ID!]!) {{ users(ids: $ids) {{ {FIELDS} }} }}"
PAGE = 10
# in closed loop, where nobody knows how many will be asked
PREPARED = 30_000
NAP_SECONDS = 0.00005
# later than that, this process has made a read late by itself
LATE_MS = 5.0
LONGEST_US = 60_000_000
_COUNT = re.compile(rb'"tweetCount":(\d+)')


class Read(msgspec.Struct, array_like=True):
    """What became of one. due, sent: time.monotonic. us: from when it was due. user: 0: of several. count: -1: none was told."""

    due: float
    sent: float
    us: float
    outcome: str
    user: int
    count: int


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """rate: reads a second; 0: closed loop, as many as are answered."""

    host: str
    port: int
    headers: dict[str, str]
    rate: float
    seconds: float
    users: int
    skew: float
    celebrity: float
    page: float
    seed: int
    connections: int = 64
    timeout_seconds: float = 2.0


class Found(msgspec.Struct, kw_only=True):
    """began: when the first was due. late: how many were sent late by this process itself; late_ms: the worst of them."""

    began: float = 0.0
    seconds: float = 0.0
    reads: list[Read] = []
    late: int = 0
    late_ms: float = 0.0


class Wire:
    """One connection. at: when its read was due, None while it is free."""

    def __init__(self, task: Task, poll: select.epoll) -> None:
        self._task, self._poll = task, poll
        self.at: float | None = None
        self.sent, self.user, self.got = 0.0, 0, b""
        self._open()

    def send(self, asked: bytes, user: int, at: float) -> None:
        self.at, self.user, self.got, self.sent = at, user, b"", time.monotonic()
        # an error is found out when its answer is read
        with suppress(OSError):
            self.socket.sendall(asked)

    def take(self) -> str | None:
        """What became of its read; None: not all of it is here."""
        try:
            part = self.socket.recv(262_144)
        except OSError:
            part = b""
        if not part:
            self.again()
            return "error"
        self.got += part
        if not is_whole(self.got):
            return None
        is_right = self.got.startswith(OK) and b'"errors"' not in self.got
        if b"\r\nconnection: close\r\n" in self.got[:2_000].lower():
            self.again()
        return "ok" if is_right else "error"

    def again(self) -> None:
        """A new connection; what the old one may still bring is nobody's."""
        self.socket.close()
        self._open()

    def _open(self) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(0.5)
        # where that fails the next read on it fails, and tries again
        with suppress(OSError):
            self.socket.connect((self._task.host, self._task.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(self.socket.fileno(), select.EPOLLIN)


class Readers:
    """Runs one task."""

    def __init__(self, task: Task) -> None:
        self._task, self._found = task, Found()
        self._poll = select.epoll()
        self._prepared = _prepared(task)
        self._blocked = 0.0
        self._wires: dict[int, Wire] = {}
        for _ in range(task.connections):
            wire = Wire(task, self._poll)
            self._wires[wire.socket.fileno()] = wire
        self._free = deque(self._wires.values())

    def run(self, began: float) -> Found:
        """began: when the first is due (time.monotonic)."""
        task, found = self._task, self._found
        found.began = began
        while (now := time.monotonic()) < began:
            time.sleep(min(0.001, began - now))
        asked, count = 0, int(task.rate * task.seconds)
        looked = began
        while True:
            now = time.monotonic()
            if task.rate:
                asked = self._send_due(asked, count, began, now)
            elif now < began + task.seconds:
                while self._free:
                    self._send(asked, time.monotonic())
                    asked += 1
            for number, _ in self._poll.poll(0):
                self._take(number)
            if now - looked > 0.05:
                looked = now
                self._give_up(now)
            is_over = asked >= count if task.rate else now >= began + task.seconds
            if is_over and len(self._free) == len(self._wires):
                break
            time.sleep(NAP_SECONDS)
        found.seconds = time.monotonic() - began
        return found

    def _send_due(self, asked: int, count: int, began: float, now: float) -> int:
        while asked < count and self._free and (at := began + asked / self._task.rate) <= now:
            self._send(asked, at)
            asked += 1
        if asked < count and not self._free:
            self._blocked = now
        return asked

    def _send(self, number: int, at: float) -> None:
        asked, user = self._prepared[number % len(self._prepared)]
        wire = self._free.popleft()
        wire.send(asked, user, at)
        # a read that waited for a connection is late by the gateway
        late_ms = (wire.sent - max(at, self._blocked)) * 1000
        self._found.late_ms = max(self._found.late_ms, late_ms)
        self._found.late += late_ms > LATE_MS

    def _take(self, number: int) -> None:
        wire = self._wires.get(number)
        if wire is None or wire.at is None:
            if wire is not None:
                self._renew(wire, number)
            return
        at, user = wire.at, wire.user
        outcome = wire.take()
        if outcome is None:
            return
        told = _COUNT.search(wire.got) if user and outcome == "ok" else None
        self._found.reads.append(Read(at, wire.sent, (time.monotonic() - at) * 1e6, outcome, user, int(told[1]) if told else -1))
        self._release(wire, number)

    def _give_up(self, now: float) -> None:
        for number, wire in list(self._wires.items()):
            if wire.at is not None and now - wire.sent > self._task.timeout_seconds:
                self._found.reads.append(Read(wire.at, wire.sent, (now - wire.at) * 1e6, "timeout", wire.user, -1))
                wire.again()
                self._release(wire, number)

    def _renew(self, wire: Wire, number: int) -> None:
        """The gateway has ended an idle connection."""
        wire.again()
        del self._wires[number]
        self._wires[wire.socket.fileno()] = wire

    def _release(self, wire: Wire, number: int) -> None:
        wire.at = None
        if self._wires.pop(number, None) is not None:
            self._wires[wire.socket.fileno()] = wire
        self._free.append(wire)


def histogram() -> HdrHistogram:
    """Of microseconds."""
    return HdrHistogram(1, LONGEST_US, 3)


def _prepared(task: Task) -> list[tuple[bytes, int]]:
    """Requests, and whose each is; 0: of several."""
    population = Population(task.users, task.skew, task.celebrity, task.seed)
    pages = round(1 / task.page) if task.page else 0
    made = []
    for number in range(int(task.rate * task.seconds) or PREPARED):
        if pages and number % pages == pages - 1:
            asked, user = body(MANY, {"ids": [str(population.draw()) for _ in range(PAGE)]}), 0
        else:
            user = population.draw()
            asked = body(ONE, {"id": str(user)})
        made.append((_request(task, asked), user))
    return made


def _request(task: Task, asked: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in task.headers.items())
    head = f"POST /graphql HTTP/1.1\r\nhost: {task.host}\r\naccept: application/json\r\ncontent-type: application/json\r\n{lines}"
    return f"{head}content-length: {len(asked)}\r\n\r\n".encode() + asked


if __name__ == "__main__":
    readers = Readers(msgspec.json.decode(sys.stdin.buffer.readline(), type=Task))
    print("ready", flush=True)
    sys.stdout.buffer.write(msgspec.json.encode(readers.run(float(sys.stdin.buffer.readline()))))
