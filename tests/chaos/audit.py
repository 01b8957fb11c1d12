"""The end of every fault: what SQL has against what the view shows, row by row, and by `viewgate audit`. Changes nothing."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterable
from dataclasses import dataclass

from tests.road import Fields, Road


@dataclass(slots=True)
class Audit:
    """rows, fields: how many were compared. lost, phantom, double: see `count`. told: by `viewgate audit`; passed: it found nothing."""

    rows: int = 0
    fields: int = 0
    lost: int = 0
    phantom: int = 0
    double: int = 0
    passed: bool = False
    told: str = ""


async def audited(road: Road) -> Audit:
    """Of a road where nothing is written."""
    in_sql, in_view = await road.in_sql(), await road.in_view()
    lost, phantom, double = count((in_sql.get(key), in_view.get(key)) for key in in_sql.keys() | in_view.keys())
    command = (sys.executable, "-m", "app", "audit")
    process = await asyncio.create_subprocess_exec(*command, env=road.environment, stdout=PIPE, stderr=STDOUT)
    told = (await process.communicate())[0].decode()
    found = re.search(r"(\d+) rows checked, (\d+) fields compared, 0 mismatches", told)
    passed = process.returncode == 0 and found is not None
    return Audit(len(in_sql), int(found[2]) if found else 0, lost, phantom, double, passed, told)


def count(pairs: Iterable[tuple[Fields | None, Fields | None]]) -> tuple[int, int, int]:
    """How many changes are lost, phantom and double. pairs: a row in SQL and in the view.

    A field that is too low has lost, one that is too high has counted twice; a row that SQL does not have is a phantom.
    """
    lost = phantom = double = 0
    for right, shown in pairs:
        if right is None:
            phantom += shown is not None
        elif shown is None:
            lost += 1
        else:
            for name in right:
                if right[name] != shown[name]:
                    less = not right[name].isdigit() or not shown[name].isdigit() or int(shown[name]) < int(right[name])
                    lost, double = lost + less, double + (not less)
    return lost, phantom, double
