"""Where a measurement was taken: processor, cores, versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def versions(*libraries: str) -> str:
    """Of installed packages, by their names."""
    return ", ".join(f"{name} {version(name)}" for name in libraries)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
