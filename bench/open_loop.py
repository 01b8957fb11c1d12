"""A client in a process of its own that asks when the schedule says, however long answers take: `python -m … port rate seconds users`.

Each latency is from when the request was due, so that a gateway that stops for a moment is told of by all who would have asked then.
Prints its figures as JSON. It sleeps for some 0.1 ms at a time: no latency is finer than that.
"""

import random
import select
import socket
import sys
import time
from collections import defaultdict, deque

import msgspec

from bench.closed_loop import OK, body, is_whole, request
from bench.read_servers import FIELDS

CONNECTIONS = 32
NAP_SECONDS = 0.00005
LONGEST_SECONDS = 10.0


class Found(msgspec.Struct):
    """ms: of each request, from when it was due. late_ms: by how much one was sent too late, at most; it counts."""

    ms: list[float] = []
    late_ms: float = 0.0
    failed: int = 0


def ask(port: int, rate: float, seconds: float, users: int) -> Found:
    """Ask for one user after another, drawn from a seed."""
    chance, found = random.Random(8), Found()
    bodies = [body(f"query User($id: ID!) {{ user(id: $id) {{ {FIELDS} }} }}", {"id": str(chance.randint(1, users))}) for _ in range(5_000)]
    requests = [request(one) for one in bodies]
    poll, by_number, got = select.epoll(), dict[int, socket.socket](), defaultdict[int, bytes](bytes)
    for _ in range(CONNECTIONS):
        one = socket.create_connection(("127.0.0.1", port))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(one, select.EPOLLIN)
        by_number[one.fileno()] = one
    free, due = deque(by_number), dict[int, float]()
    began, asked, count = time.perf_counter(), 0, int(rate * seconds)
    while asked < count or due:
        now = time.perf_counter()
        while asked < count and free and (at := began + asked / rate) <= now:
            number = free.popleft()
            by_number[number].sendall(requests[asked % len(requests)])
            due[number] = at
            found.late_ms = max(found.late_ms, (now - at) * 1000)
            asked += 1
        for number, _ in poll.poll(0):
            got[number] += by_number[number].recv(65536)
            if is_whole(got[number]):
                found.ms.append((time.perf_counter() - due.pop(number)) * 1000)
                found.failed += not got.pop(number).startswith(OK)
                free.append(number)
        if due and now - min(due.values()) > LONGEST_SECONDS:
            found.failed += len(due)
            break
        time.sleep(NAP_SECONDS)
    return found


if __name__ == "__main__":
    port, rate, seconds, users = map(int, sys.argv[1:])
    sys.stdout.buffer.write(msgspec.json.encode(ask(port, rate, seconds, users)))
