"""Becomes a server: dies with its parent, gives up root when told to, then execs. A script that imports nothing of this house."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, uid: str, gid: str, *argv: str) -> None:
    """Exec `argv`, its program with the whole path; `uid` and `gid` are numbers or "" to stay who we are."""
    # from setuid on nothing may be imported: another user need not be able to read our Python
    if uid:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    die_with(int(parent))
    os.execv(argv[0], argv)  # noqa: S606 - that is what this script is for


def die_with(parent: int) -> None:
    """After setuid, which forgets it. Only Linux can; elsewhere a parent that is killed leaves its servers behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit("the parent died before its child was ready to follow it")


if __name__ == "__main__":
    main(*sys.argv[1:])
