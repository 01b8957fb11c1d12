"""Faults of PostgreSQL: restarted in good order, and killed."""

import httpx

from demo.servers.process import NotReadyError, free_port, until
from tests.chaos.conftest import OpenScene
from tests.chaos.readers import QUERY


async def test_f24_postgres_restarted(scene_with: OpenScene) -> None:
    """PostgreSQL is restarted in good order under load, then killed by SIGKILL and started again. Beside the view's readers others ask a
    gateway in mode sql, and one whose Redis is not there, so that it answers by its fallback."""
    async with scene_with("postgres") as scene:
        await scene.serve(VIEWGATE_MODE="sql")
        await scene.serve(VIEWGATE_FALLBACK="sql", VIEWGATE_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
        viewing, *asking = [f"http://127.0.0.1:{port}/graphql" for port in scene.gateways.values()]
        scene.readers.urls += asking
        process = scene.postgres.process
        assert process
        for end in (process.stop, process.kill):
            await scene.goes_on(2)
            assert [await _code(url) for url in (viewing, *asking)] == ["", "", ""]
            await end()
            codes = [await _code(url) for url in (viewing, *asking)]
            # whoever reads the view does not notice
            assert codes[0] == ""
            assert all(codes[1:])
            await scene.goes_on(1)
            await process.start()
            for url in asking:
                await until(lambda url=url: _answers(url), 30)  # type: ignore[misc]  # the default binds the loop's value
            scene.proves(f"away by {end.__name__}: mode sql told {codes[1]}, the fallback {codes[2]}, and the view was read")
        scene.mended()
        await scene.healed()


async def _code(url: str) -> str:
    """Of the error that a reader gets, "" for an answer."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        told = (await client.post(url, json={"query": QUERY, "variables": {"id": "1"}})).json()
    return str(told["errors"][0]["extensions"]["code"]) if "errors" in told else ""


async def _answers(url: str) -> None:
    if code := await _code(url):
        raise NotReadyError(code)
