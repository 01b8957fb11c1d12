"""A command of viewgate, or a server beside it, in a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from app.settings import Settings, key_of


@asynccontextmanager
async def viewgate(settings: Settings, folder: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Running, and told to end with the block if it has not ended by then. It logs to `folder/<command>.log`."""
    told = {key_of(name): str(value) for name, value in settings.model_dump(exclude_unset=True).items()}
    async with running((sys.executable, "-m", "app", *command), told, folder / f"{command[0]}.log") as process:
        yield process


@asynccontextmanager
async def running(argv: Sequence[str], told: Mapping[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that is told this by its environment, and by no other setting of ours; ended as in `viewgate`."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("VIEWGATE_")}
    with log.open("ab") as said:
        process = await asyncio.create_subprocess_exec(*argv, env=others | dict(told), stdout=said, stderr=said)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
