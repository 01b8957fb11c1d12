"""Where a measurement was taken: processor, cores, versions; and what a process used of it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def versions(*libraries: str) -> str:
    """Of installed packages, by their names."""
    return ", ".join(f"{name} {version(name)}" for name in libraries)


def cpu_seconds(pid: int) -> float:
    """What a process that runs has used until now, with its children that have ended. Linux only: 0 elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
