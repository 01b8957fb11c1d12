"""A clock that is wrong."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from demo.servers.process import until
from tests.chaos.conftest import OpenScene

SKEWS = (3600, -7200)


async def test_f19_clock_skew(scene_with: OpenScene, tmp_path: Path) -> None:
    """The clock of the projector jumps an hour ahead, and then three hours back, while it runs (libfaketime)."""
    library = next(iter(_libraries()), None)
    if library is None:
        pytest.skip("needs libfaketime (Debian: apt-get install faketime)")
    async with scene_with() as scene:
        (projector,) = scene.projectors
        projector.terminate()
        await projector.wait()
        clock = tmp_path / "clock"
        clock.write_text("+0")
        skewed = await scene.project(
            LD_PRELOAD=str(library), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1", FAKETIME_DONT_FAKE_MONOTONIC="1"
        )
        await until(lambda: scene.counts("viewgate_changes_applied_total", 1), 40)
        scene.readers.by_clock = False
        for skew in (*SKEWS, 0):
            clock.write_text(f"{skew:+d}")
            await until(lambda skew=skew: scene.readers.leads(skew * 1000), 20)  # type: ignore[misc]  # the default binds the loop's value
            await scene.goes_on(3)
        scene.readers.by_clock = True
        scene.mended()
        assert skewed.returncode is None
        scene.proves(
            f"answers were as of {SKEWS[0]} s ahead, and then {-SKEWS[1]} s ago, by the projector's clock; their counts were right"
        )
        await scene.healed()


def _libraries() -> Sequence[Path]:
    return [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
