"""A command of viewgate in a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.settings import Settings, key_of


@asynccontextmanager
async def viewgate(settings: Settings, folder: Path, *command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Running, and told to end with the block if it has not ended by then. It logs to `folder/<command>.log`."""
    told = {key_of(name): str(value) for name, value in settings.model_dump(exclude_unset=True).items()}
    others = {name: value for name, value in os.environ.items() if not name.startswith("VIEWGATE_")}
    with (folder / f"{command[0]}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "app", *command, env=others | told, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
