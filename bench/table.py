"""The results as a table for people and as JSON for programs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench.contender import FETCH_BYTES
from bench.machine import machine, versions
from bench.stopwatch import Run

OURS = "viewgate"
LIBRARIES = ("aiokafka", "redis", "hiredis", "msgspec", "uvloop", "confluent-kafka")
CAVEATS = (
    "One machine: the contender shares its cores with Kafka, Redis and whatever else runs. Compare the ratios, not the rates.",
    "Users have no profile: counts only, as while a view is first built. Redis writes its append-only file (everysec).",
    "Of peers that keep their counts for themselves, what it costs others to read them is not in their time.",
)


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one contender, and what it cost Redis."""

    contender: str
    distribution: str
    run: Run
    redis_cpu_seconds: float = 0.0


def print_results(results: list[Result], promises: Mapping[str, str], events: int, servers: Sequence[str]) -> None:
    """A line per contender and distribution, then what each promises (by its name) and what to bear in mind."""
    console = Console(width=140)
    console.print(f"\n{machine()}; {', '.join(servers)}; {versions(*LIBRARIES)}")
    title = f"{events:,} follow events from six partitions, two counts each, the median of {len(_runs(results, *_first(results)))} rounds"
    table = Table(title=title, title_justify="left")
    for heading in ("distribution", "contender"):
        table.add_column(heading)
    for heading in ("events/s", "min to max", "viewgate to it", "µs of its CPU", "of Redis's", "fetches", "peak MB"):
        table.add_column(heading, justify="right")
    # as they ran: by distribution, then by contender
    for contender, distribution in dict.fromkeys((result.contender, result.distribution) for result in results):
        table.add_row(distribution, contender, *_figures(results, contender, distribution, events))
    console.print(table)
    for contender in dict.fromkeys(result.contender for result in results):
        console.print(f"- {contender}: {promises[contender]}.", highlight=False)
    for caveat in CAVEATS:
        console.print(f"- {caveat}", highlight=False)


def write_json(path: Path, results: list[Result], events: int, servers: Sequence[str]) -> None:
    """Every run's figures, and where they were taken."""
    about = {"machine": machine(), "servers": servers, "versions": versions(*LIBRARIES), "events": events, "fetch_bytes": FETCH_BYTES}
    runs = [{"events_per_second": round(events / result.run.seconds), **asdict(result)} for result in results]
    path.write_bytes(msgspec.json.format(msgspec.json.encode({**about, "runs": runs}), indent=2))


def _figures(results: list[Result], contender: str, distribution: str, events: int) -> list[str]:
    runs = _runs(results, contender, distribution)
    rates = [events / run.seconds for run in runs]
    median = statistics.median(rates)
    ours = [events / run.seconds for run in _runs(results, OURS, distribution)]
    ratio = f"{statistics.median(ours) / median:.2f} x" if ours else "unknown"
    cpu = statistics.median(run.cpu_seconds for run in runs) / events * 1e6
    told = [run.fetches for run in runs if run.fetches is not None]
    fetches, peak = f"{statistics.median(told):.0f}" if told else "", max(run.peak_mb for run in runs)
    spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
    redis = statistics.median(result.redis_cpu_seconds for result in _of(results, contender, distribution)) / events * 1e6
    return [f"{median:,.0f}", spread, ratio, f"{cpu:.1f}", f"{redis:.1f}", fetches, f"{peak}"]


def _runs(results: list[Result], contender: str, distribution: str) -> list[Run]:
    return [result.run for result in _of(results, contender, distribution)]


def _of(results: list[Result], contender: str, distribution: str) -> list[Result]:
    return [result for result in results if (result.contender, result.distribution) == (contender, distribution)]


def _first(results: list[Result]) -> tuple[str, str]:
    return results[0].contender, results[0].distribution
