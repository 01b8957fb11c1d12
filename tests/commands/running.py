"""The `viewgate` command in a process of its own, without the settings of this environment."""

import asyncio
import os
import sys
from pathlib import Path

VIEWGATE = str(Path(sys.executable).with_name("viewgate"))
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("VIEWGATE_")}
PIPE = asyncio.subprocess.PIPE


async def start(*arguments: str, **settings: str) -> asyncio.subprocess.Process:
    """With its three streams as pipes, in a folder without `.env`."""
    environment = ENVIRONMENT | settings
    return await asyncio.create_subprocess_exec(VIEWGATE, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment, cwd="/tmp")


async def run(*arguments: str, given: str = "", **settings: str) -> tuple[int | None, str, str]:
    """Exit code, output, errors. given: what it reads from standard input."""
    child = await start(*arguments, **settings)
    out, err = await asyncio.wait_for(child.communicate(given.encode()), 60)
    return child.returncode, out.decode(), err.decode()
