"""PostgreSQL refuses root: whom root runs it as, and a folder and programs which that user can reach."""

import hashlib
import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from demo.servers.process import Account, ServerError, run

# outlives a reboot, and every user can reach it
ELSEWHERE = Path("/var/tmp")  # noqa: S108 - what is made there belongs to root and is named after the folder it stands for


def unprivileged(data: Path) -> Account | None:
    """None when we are not root; else the owner of `data`, or before there is any, a user that this machine has."""
    if os.geteuid():
        return None
    if data.exists() and (owner := data.stat()).st_uid:
        return Account(f"user {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, user.pw_uid, user.pw_gid)
    raise ServerError("PostgreSQL does not run as root, and there is no user postgres or nobody: run this as another user")


async def reachable(folder: Path, account: Account | None) -> Path:
    """`folder` itself, made if need be; where the account cannot go into it, a folder elsewhere that it becomes a link to."""
    real = _made(folder)
    return real if await _reaches(account, real) else _linked(folder)


def _made(folder: Path) -> Path:
    if folder.is_symlink() and not folder.exists():
        folder.unlink()
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    return folder.resolve()


def _linked(folder: Path) -> Path:
    elsewhere = ELSEWHERE / f"viewgate-{hashlib.sha256(bytes(folder.absolute())).hexdigest()[:12]}"
    try:
        folder.rmdir()
    except OSError as full:
        raise ServerError(f"PostgreSQL's user cannot reach its data in {folder}: open the parents (chmod o+x) or remove it") from full
    folder.symlink_to(elsewhere)
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir()
    elsewhere.chmod(0o711)
    (elsewhere / "link").write_text(str(folder))
    _forget_the_unlinked()
    return elsewhere


def _forget_the_unlinked() -> None:
    """Nothing leads to these any more: whoever removed the folder could not know of them."""
    for record in ELSEWHERE.glob("viewgate-*/link"):
        try:
            unlinked = record.lstat().st_uid == 0 and not _leads_to(Path(record.read_text()), record.parent)
        except FileNotFoundError:
            continue
        if unlinked:
            shutil.rmtree(record.parent, ignore_errors=True)


def _leads_to(link: Path, folder: Path) -> bool:
    return link.is_symlink() and link.readlink() == folder


async def reachable_programs(binaries: Path, home: Path, account: Account | None) -> Path:
    """`binaries` itself; where the account cannot reach it, as in a virtual environment below /root, a copy in `home`."""
    if await _reaches(account, binaries / "postgres"):
        return binaries
    installation = binaries.parent
    copy = home / "programs" / installation.parent.name / installation.name
    if not copy.exists():
        # the wheel's programs look for its libraries three folders up
        for libraries in installation.parent.parent.glob(f"{installation.parent.name}.libs"):
            shutil.copytree(libraries, home / "programs" / libraries.name, dirs_exist_ok=True)
        shutil.copytree(installation, copy.with_name("copying"), symlinks=True, dirs_exist_ok=True)
        copy.with_name("copying").rename(copy)
    return copy / binaries.name


async def _reaches(account: Account | None, path: Path) -> bool:
    return account is None or not await run("sh", "-c", 'test -x "$0" || echo no', str(path), account=account)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one test's servers which every user can reach, unlike pytest's; gone at the end."""
    folder = Path(mkdtemp(prefix="viewgate-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
