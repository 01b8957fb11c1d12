"""A running demo's settings as a file for shells, so that other terminals can use its stack. Starts nothing."""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ADDRESSES = ("VIEWGATE_KAFKA_BOOTSTRAP", "VIEWGATE_REDIS_URL", "VIEWGATE_POSTGRES_URL")
# no setting, so without the prefix of one
MARK = "_VIEWGATE_DEMO"
HEAD = "# the demo that runs here, for sh, bash, zsh and fish: . FILE\n"


@contextmanager
def told(file: Path, settings: Mapping[str, str], started: Iterable[str]) -> Iterator[None]:
    """Write the file, readable by its owner only since addresses may carry passwords; it goes at the end.

    started: the addresses of the servers that are the demo's own.
    """
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(as_shell({**settings, MARK: " ".join(started)}, Path(sys.executable).parent))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def as_shell(settings: Mapping[str, str], programs: Path) -> str:
    """Exports of the settings that are not empty, and `programs` first on PATH, once however often it is read."""
    exports = [f"export {name}={shlex.quote(value)}\n" for name, value in settings.items() if value]
    # a `case` or an `if` would not be understood by all four
    once = f'echo ":$PATH:" | grep -qF {shlex.quote(f":{programs}:")} || export PATH={shlex.quote(str(programs))}:"$PATH"\n'
    return HEAD + "".join(exports) + once


def forget_the_told() -> None:
    """A terminal that has read the file of a demo, ended by now perhaps, starts the next one as if it had not."""
    if MARK not in os.environ:
        return
    by_a_demo = os.environ.pop(MARK).split(" ")
    for name in ADDRESSES:
        if os.environ.get(name) in by_a_demo:
            del os.environ[name]
    # there lies the redis-server of PyPI, which would hide that of the machine
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join(part for part in os.environ.get("PATH", "").split(os.pathsep) if part != programs)
