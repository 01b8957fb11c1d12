"""What is installed into the cache once, and anew when what it is made from has changed."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from demo.servers.server import Say


async def installed(home: Path, of: bytes, what: str, make: Callable[[], Awaitable[None]], say: Say) -> None:
    """make: fills `home`, from nothing; it is not called while `of` is as it was. what: said before it is."""
    ready, digest = home / "ready", hashlib.sha256(of).hexdigest()
    if not ready.is_file() or ready.read_text() != digest:
        say(f"bench: installing {what} into {home}, once")
        await make()
        ready.write_text(digest)
