"""A check as data, and how the checks of one server are run: in order, each within a time limit. Knows no server."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
Verdict = Literal["ok", "warning", "wrong", "skipped"]
ANSWERS = "answers"
WORST_LAST: tuple[Verdict, ...] = ("skipped", "ok", "warning", "wrong")
# a check asks several things; and a server that hangs holds the command up for one check
SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 5.0
CLOCK_WARNING_SECONDS, CLOCK_WRONG_SECONDS = 1.0, 10.0
NODE = r"(\[[0-9a-f:]+\]|[\w.-]+)(:\d+)?"
NODES = re.compile(f"{NODE}(,{NODE})*")
CLOCK_MEND = "Have a time service (chrony, systemd-timesyncd) on this machine and on the server's."


class Finding(NamedTuple):
    """What a check says. found: what is there. mend: what to do; None: what the check itself says to do."""

    verdict: Verdict
    found: str
    mend: str | None = None


class Result(NamedTuple):
    """A finding as it is told, with the server and the check that it is of. mend is empty where nothing is to be done."""

    server: str
    check: str
    verdict: Verdict
    found: str
    mend: str


class Unreadable(Exception):
    """The server does not let us look, which is a warning; the message says at what, `mend` where to look instead."""

    def __init__(self, message: str, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


class NothingThere(Exception):
    """What a check looks at is not there, which another check has told; the message says what."""


@dataclass(frozen=True, slots=True)
class Check(Generic[T]):
    """One check. looks_at, warning, wrong, mend: in words, for docs/doctor.md; the last also for a finding that says nothing else."""

    name: str
    looks_at: str
    warning: str
    wrong: str
    mend: str
    run: Callable[[T], Awaitable[Finding]]


@dataclass(frozen=True, slots=True)
class Checks(Generic[T]):
    """The checks of one server, in the order they are told. Where ANSWERS is wrong, those after it are skipped.

    away: what the server's client raises when it is not reached. refusals: when it does not answer one question. asks: the
    server that is asked, where it has another name.
    """

    server: str
    away: tuple[type[Exception], ...]
    refusals: tuple[type[Exception], ...]
    asks: str = ""
    checks: list[Check[T]] = field(default_factory=list)

    def check(
        self, name: str, looks_at: str, *, warning: str = "", wrong: str = "", mend: str = ""
    ) -> Callable[[Callable[[T], Awaitable[Finding]]], Callable[[T], Awaitable[Finding]]]:
        """Add the function below it."""

        def added(function: Callable[[T], Awaitable[Finding]]) -> Callable[[T], Awaitable[Finding]]:
            self.checks.append(Check(name, looks_at, warning, wrong, mend, function))
            return function

        return added

    async def run(self, asked: T, limit_seconds: float, ends_at: float, at: str = "") -> list[Result]:
        """Run them all. limit_seconds: of each, between the shortest and the longest. ends_at: of all, by the loop's clock.

        at: where the server is, to be told if it is away.
        """
        seconds = min(max(limit_seconds, SHORTEST_SECONDS), LONGEST_SECONDS)
        results: list[Result] = []
        silent = False
        for check in self.checks:
            left = min(seconds, ends_at - asyncio.get_running_loop().time())
            if silent or left <= 0:
                results.append(
                    self._skipped(check) if silent else Result(self.server, check.name, "skipped", "no time was left for it", "")
                )
                continue
            finding, away = await self._ask(check, asked, left, at)
            results.append(_result(self.server, check, finding))
            silent = away or (check.name == ANSWERS and finding.verdict == "wrong")
        return results

    def skipped(self) -> list[Result]:
        """What to tell where the server is known not to answer."""
        return [self._skipped(check) for check in self.checks]

    def _skipped(self, check: Check[T]) -> Result:
        return Result(self.server, check.name, "skipped", f"{self.asks or self.server} does not answer", "")

    async def _ask(self, check: Check[T], asked: T, seconds: float, at: str) -> tuple[Finding, bool]:
        """What it finds, and whether the server is away."""
        first = check.name == ANSWERS
        mend = None if first else f"See that {self.asks or self.server} runs, and what it logs."
        where = f"{at}: " if first and at else ""
        try:
            async with asyncio.timeout(seconds):
                return await check.run(asked), False
        except NothingThere as absent:
            return Finding("skipped", str(absent)), False
        except Unreadable as forbidden:
            return Finding("warning", str(forbidden), forbidden.mend), False
        except TimeoutError:
            return Finding("wrong", f"{where}no answer in {seconds:.1f} s", mend), True
        except self.away as away:
            return Finding("wrong", f"{where}cannot be reached: {said(away)}", mend), True
        except self.refusals as refused:
            told = said(refused)
            return Finding("wrong", f"{where}{told}") if first else Finding("skipped", f"cannot be told: {told}"), False


def worst(findings: Iterable[Finding], fine: str) -> Finding:
    """Several findings of one check as one, the worst of them counting. fine: what is found where there are none."""
    told = list(findings)
    if not told:
        return Finding("ok", fine)
    verdict = max((finding.verdict for finding in told), key=WORST_LAST.index)
    mends = list(dict.fromkeys(finding.mend for finding in told if finding.mend))
    return Finding(verdict, "; ".join(finding.found for finding in told), " ".join(mends) or None)


def joined(where: Sequence[str], results: Sequence[Result]) -> Result:
    """The results of one check on several servers as one, the worst of them counting."""
    verdict = max((result.verdict for result in results), key=WORST_LAST.index)
    same = len({result.found for result in results}) == 1
    found = results[0].found if same else "; ".join(f"{at}: {result.found}" for at, result in zip(where, results, strict=True))
    mend = " ".join(dict.fromkeys(result.mend for result in results if result.mend))
    return Result(results[0].server, results[0].check, verdict, found, mend)


def clock(ahead_seconds: float) -> Finding:
    """Whether a server's clock may differ from ours by so much. Negative: it is behind."""
    off = abs(ahead_seconds)
    if off <= CLOCK_WARNING_SECONDS:
        return Finding("ok", f"within {max(off, 0.001):.3f} s of ours")
    found = f"{off:.1f} s {'ahead of' if ahead_seconds > 0 else 'behind'} ours: as-of and the age of cached rows are told by clocks"
    return Finding("wrong" if off > CLOCK_WRONG_SECONDS else "warning", found)


def address(url: str) -> str:
    """A server's address as it may be shown: nothing of who logs in, nor of the options."""
    scheme, _, rest = url.partition("://")
    if scheme.endswith("+cluster"):
        # several hosts are no URL to Python 3.11.2, if one of them is an address of IPv6
        nodes = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
        return f"{scheme}://{nodes if NODES.fullmatch(nodes) else '…'}"
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # what stands where the port should be may be the end of a password
        return f"{scheme}://…"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}"


def said(error: BaseException) -> str:
    """An error in one line, by its class where it has no words."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names as an enumeration, not more than `most` of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _result(server: str, check: Check[T], finding: Finding) -> Result:
    mend = finding.mend if finding.mend is not None else check.mend
    return Result(server, check.name, finding.verdict, finding.found, mend if finding.verdict in {"warning", "wrong"} else "")
