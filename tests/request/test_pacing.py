"""New documents are read apart: nobody else waits for them, and whoever sends too many waits for his own."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from schema import pacing
from schema.compile import Plans
from schema.pacing import PacedThread
from tests.request.arranged import ADA, ADAS, MemoryLoader
from tests.request.conftest import Open

UNUSUAL = '{ ... { user(id: "1") { username } } }'


async def test_work_waits_for_its_share_once_what_was_saved_up_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SHARE", 0.1)
    monkeypatch.setattr(pacing, "BURST_SECONDS", 1.0)
    now, slept = 0.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(round(seconds, 6))
        now += seconds

    async def works(*seconds: float) -> Sequence[float]:
        """For so long each, one after another; and how long it slept before them."""
        slept.clear()

        def work(one: float) -> None:
            nonlocal now
            now += one

        for one in seconds:
            await thread.run(lambda one=one: work(one))  # type: ignore[misc]  # mypy infers no default
        return [*slept]

    thread = PacedThread(lambda: now, sleep)
    assert await works(0.4, 0.4) == []
    # 0.2 are left and a while has passed; it may be overdrawn once, and is waited for then
    assert await works(0.6) == []
    assert await works(0.3, 0.1) == [pytest.approx(4.0), 3.0]
    now += 1000.0
    assert await works(0.9) == []


async def test_work_that_fails_counts_and_what_it_raises_is_raised() -> None:
    thread = PacedThread()
    with pytest.raises(ZeroDivisionError):
        await thread.run(lambda: 1 // 0)
    assert await thread.run(lambda: 5) == 5


@pytest.mark.parametrize("answered_by", ["plan", "short"], indirect=True)
async def test_a_new_document_keeps_nobody_waiting(open_over: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await open_over(MemoryLoader())
    goes_on, learn = threading.Event(), Plans.learn

    def slowly(plans: Plans, text: str) -> object:
        assert goes_on.wait(30)
        return learn(plans, text)

    monkeypatch.setattr(Plans, "learn", slowly)
    unusual = asyncio.create_task(client.post("/graphql", json={"query": UNUSUAL}))
    try:
        for _ in range(3):
            assert (await client.post("/graphql", json={"query": ADA})).json() == ADAS
        assert not unusual.done()
    finally:
        goes_on.set()
    assert (await unusual).json() == ADAS


async def test_what_is_known_is_not_read_apart(open_over: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Redis is away every request goes to the executor, and not all of them through one thread."""
    client = await open_over(MemoryLoader())
    wrong = {"query": "query ($i: ID!) { ...{ user(id: $i) { id } } }", "variables": {"i": True}}
    first = await client.post("/graphql", json=wrong)
    monkeypatch.setattr(PacedThread, "run", None)
    assert (await client.post("/graphql", json=wrong)).json() == first.json()
