"""The bench of reads: its client, and what it makes of the figures."""

from typing import Any
from xml.etree import ElementTree

import pytest

from app.server import application
from app.settings import Settings
from app.telemetry import GatewayMetrics
from bench import closed_loop, reads
from bench.closed_loop import NotAnswered, answer, body, load, request
from bench.read_servers import OURS
from bench.reads import Asking, Turn, goals
from tests.clients.running import served
from tests.request.arranged import DEFINITION, MemoryLoader


def turn(query: str, server: str, rate: float) -> Turn:
    return Turn(query, server, rate, 1.0, 2.0)


def test_a_goal_is_held_against_the_median_of_all_rounds() -> None:
    peers = {server for _, server in reads.GOALS}
    turns = [turn(query, peer, rate) for query in ("user", "users", "unseen") for peer in peers for rate in (1, 100, 900)]
    turns += [turn(query, OURS, rate) for query in ("user", "users", "unseen") for rate in (1, 250, 9_000)]
    assert {ratio for *_, ratio in goals(turns)} == {2.5}
    assert [(query, peer, wanted) for query, peer, wanted, _ in goals(turns)] == [(*at, wanted) for at, wanted in reads.GOALS.items()]


def test_the_picture_has_a_bar_for_each_server_the_fastest_first_and_none_for_a_limit() -> None:
    turns = [turn("user", server, rate) for server, rate in (("mercurius", 100.0), (OURS, 200.0), ("uvicorn", 900.0), ("apollo", 50.0))]
    root = ElementTree.fromstring(reads.drawn(turns))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1::2] == [OURS, "mercurius", "apollo"]
    widths = [float(bar.attrib["width"]) for bar in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths == [widths[0], widths[0] / 2, widths[0] / 4]


def test_every_text_of_unseen_is_another_and_ids_come_from_the_seed() -> None:
    asking, again = Asking(100), Asking(100)
    assert len({asking.unseen() for _ in range(50)}) == 50
    again.unseen()
    assert Asking(100).user() == Asking(100).user() != Asking(100).users()


def test_a_body_in_chunks_is_put_together() -> None:
    assert closed_loop._unchunked(b'5\r\n{"a":\r\nA\r\n1234567890\r\n1\r\n}\r\n0\r\n\r\n') == b'{"a":1234567890}'


async def test_the_client_counts_what_is_answered_and_fails_where_something_is_not(servers_folder: Any) -> None:
    app = application(Settings(), DEFINITION, {"view": MemoryLoader()}, GatewayMetrics())
    async with served(app) as url:
        port = int(url.split(":")[2].split("/")[0])
        asked = body('{ user(id: "1") { username } }', {})
        assert await answer(port, asked) == b'{"data":{"user":{"username":"ada"}}}'
        found = await load(port, lambda: request(asked), 0.2, connections=3)
        assert len(found.latencies) > 3
        assert found.rate == len(found.latencies) / found.seconds > 0
        with pytest.raises(NotAnswered, match="400"):
            await load(port, lambda: request(b"{"), 0.2)
        with pytest.raises(NotAnswered, match="400"):
            await answer(port, b"{")
