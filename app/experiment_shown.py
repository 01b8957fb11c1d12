"""How `viewgate experiment` shows what is on trial and what has come of it: tables, or JSON. Asks nobody."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import typer

from app.console import console, table
from app.experiment import NONE, Experiment
from app.experiment_metrics import SUBJECTS
from app.experiment_store import Counted, Switched
from app.sample_ratio import Ratio, ratio

OUTCOMES = ("equal", "stale", "wrong", "error", "dropped")


@dataclass(frozen=True, slots=True)
class State:
    """source: what says so. experiment: None: there is none; where it was stopped, the last. wrong: why gateways pass over the key."""

    source: Literal["key", "settings", "stopped"]
    experiment: Experiment | None
    counted: Counted | None
    log: Sequence[Switched]
    wrong: str | None = None

    @property
    def ratio(self) -> Ratio:
        return ratio(self.counted.subjects, self.experiment.weights) if self.counted and self.experiment else Ratio(None)


def show(state: State, mismatches: int) -> None:
    """To the terminal."""
    typer.echo("\n".join(_head(state)))
    if state.experiment and state.counted:
        if state.experiment.weights:
            _show_split(state, state.experiment, state.counted)
        _show_shadow(state.counted)
        _show_mismatches(state.counted.mismatches[:mismatches])
    if state.log:
        typer.echo()
        shown = table("switched", "by", "what", "to")
        for line in state.log:
            shown.add_row(_moment(line.at_ms), line.whom, line.what, _told(line.experiment))
        console().print(shown)


def to_json(state: State, mismatches: int) -> str:
    """The same as one object."""
    experiment, counted = state.experiment, state.counted
    found: dict[str, Any] = {"from": state.source, "wrong": state.wrong, "experiment": experiment}
    if experiment and counted:
        found |= {
            "gateways": counted.gateways,
            "exposures": counted.exposures,
            "subjects": {"distinct": counted.distinct, "sample": counted.subjects},
            "ratio": {"p": state.ratio.p, "wrong": state.ratio.wrong},
            "shadow": [dict(zip(("candidate", "what", *OUTCOMES), row, strict=True)) for row in _shadow(counted.counts)],
            "fields": [dict(zip(("candidate", "what", "verdict", "field", "times"), row, strict=True)) for row in _fields(counted.counts)],
            "mismatches": counted.mismatches[:mismatches],
        }
    found["log"] = [{"atMs": line.at_ms, "whom": line.whom, "what": line.what, "experiment": line.experiment} for line in state.log]
    return msgspec.json.encode(found).decode()


def _head(state: State) -> Iterator[str]:
    experiment, counted = state.experiment, state.counted
    if state.wrong:
        yield f"What is in Redis cannot be run, and gateways go on with what they had: {state.wrong}."
        return
    if experiment is None:
        yield "Nothing is on trial" + ("." if state.source == "stopped" else ", and the settings name nothing.")
        return
    where = "by the settings" if state.source == "settings" else f"by {experiment.whom}, {_moment(experiment.started_ms)}"
    gateways = counted.gateways if counted else 0
    if state.source == "stopped":
        yield f"Nothing is on trial. The last was {experiment.name}, started {where}:"
    else:
        yield f"{experiment.name} is on trial, started {where}; {gateways} gateway{' runs' if gateways == 1 else 's run'} it."
    yield _told(experiment)


def _told(experiment: Experiment | None) -> str:
    """In a line."""
    if experiment is None:
        return "what the settings say"
    if experiment == NONE:
        return "nothing"
    told = [experiment.name]
    if experiment.weights:
        told.append(f"{', '.join(f'{mode} {weight}' for mode, weight in experiment.weights.items())} by {experiment.by}")
    if shadow := experiment.shadow:
        compared = [*(["the control"] if shadow.control else []), *([shadow.mode] if shadow.mode else [])]
        told.append(f"shadow of {shadow.share:.3%} by {' and '.join(compared)}")
    return "; ".join(told)


def _show_split(state: State, experiment: Experiment, counted: Counted) -> None:
    typer.echo()
    total, sample = sum(experiment.weights.values()), sum(counted.subjects.values())
    shown = table("mode", "weight", "exposures", "subjects", "share of subjects")
    for column in shown.columns[1:]:
        column.justify = "right"
    for mode, weight in experiment.weights.items():
        share = counted.subjects[mode] / sample if sample else 0.0
        about = "≈ " if counted.distinct > SUBJECTS else ""
        told = (f"{counted.exposures[mode]:,}", f"{about}{round(share * counted.distinct):,}", f"{share:.2%} of {weight / total:.2%}")
        shown.add_row(mode, str(weight), *told)
    console().print(shown)
    typer.echo(_judged(state.ratio, sample))


def _judged(found: Ratio, sample: int) -> str:
    if found.p is None:
        return f"Sample ratio: {sample:,} subjects are too few to say."
    if found.wrong:
        return (
            f"SAMPLE RATIO MISMATCH: by chance alone {sample:,} subjects come so far from the weights once in {_once(found.p)}. "
            "Compare nothing by this split before you know why: docs/experiments.md."
        )
    return f"Sample ratio: {sample:,} subjects are as the weights have it (p = {found.p:.3f})."


def _once(p: float) -> str:
    return f"{1 / p:,.0f}" if p > 1e-9 else f"10^{-math.floor(math.log10(p or 1e-300))}"


def _show_shadow(counted: Counted) -> None:
    rows, fields = list(_shadow(counted.counts)), list(_fields(counted.counts))
    if rows:
        typer.echo()
        shown = table("shadow", "compared", *OUTCOMES)
        for candidate, what, *times in rows:
            shown.add_row(f"{candidate}, {what}", f"{sum(times[:3]):,}", *(f"{number:,}" for number in times))
        console().print(shown)
    if fields:
        typer.echo()
        shown = table("field", "by", "", "times")
        for candidate, what, verdict, name, times_ in fields:
            shown.add_row(name, f"{candidate}, {what}", verdict, f"{times_:,}")
        console().print(shown)


def _show_mismatches(mismatches: Sequence[Mapping[str, Any]]) -> None:
    if not mismatches:
        return
    typer.echo()
    shown = table("differed", "row", "field", "answered", "candidate", "verdict")
    for one in mismatches:
        behind = f", {one['behind']} by {one['ageMs'] / 1000:.1f} s" if one["verdict"] == "stale" and one["behind"] else ""
        sides = [f"{side['mode']}: {'absent' if side['value'] is None else side['value']}" for side in (one["answered"], one["candidate"])]
        name = f"{one['field']}{' (control)' if one['control'] else ''}"
        shown.add_row(_moment(one["atMs"]), f"{one['by']} {one['value']}", name, *sides, f"{one['verdict']}{behind}")
    console().print(shown)


def _shadow(counts: Mapping[str, int]) -> Iterator[tuple[Any, ...]]:
    """Candidate, control or candidate, and a number for each of OUTCOMES."""
    parts = [name.split(":") for name in counts if name.startswith("shadow:")]
    for candidate, what in sorted({(one[1], one[2]) for one in parts}, key=lambda one: (one[1] != "control", one[0])):
        yield candidate, what, *(counts.get(f"shadow:{candidate}:{what}:{outcome}", 0) for outcome in OUTCOMES)


def _fields(counts: Mapping[str, int]) -> list[tuple[str, str, str, str, int]]:
    """Candidate, control or candidate, verdict, field, how often; the most first."""
    found = []
    for counted, times in counts.items():
        if counted.startswith("field:"):
            _, candidate, what, verdict, name = counted.split(":", 4)
            found.append((candidate, what, verdict, name, times))
    return sorted(found, key=lambda one: -one[-1])


def _moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
