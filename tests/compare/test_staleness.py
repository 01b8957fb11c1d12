"""Which answers are called wrong, and how old what they lacked is; a journal that goes on where it was."""

from pathlib import Path

import pytest

from bench.compare.faults import moments
from bench.compare.journal import Head, Journal, Measured, Other, capacities
from bench.compare.reading import Found, Read, histogram
from bench.compare.results import Moment, Staleness, Timing
from bench.compare.staleness import Log, staleness

HEAD = Head(scenario="even", seed=1, version="1", url="")


def judged(*reads: Read) -> Staleness:
    log = Log()
    log.add([(30.0, 1), (10.0, 1), (20.0, 1), (15.0, 2)])
    return staleness("cache-aside", 5.0, reads, {1: 100, 2: 7}, log)


def read(sent: float, user: int, count: int) -> Read:
    return Read(sent - 1, sent, 1000.0, "ok", user, count)


def test_an_answer_is_wrong_by_the_oldest_change_that_it_lacks() -> None:
    found = judged(read(25, 1, 102), read(25, 1, 101), read(25, 1, 100), read(35, 1, 102), read(25, 2, 8))
    assert (found.answers, found.wrong) == (5, 3)
    assert found.ages_ms == [5_000, 15_000, 5_000]


def test_what_was_acknowledged_after_the_question_may_be_there_or_not() -> None:
    assert judged(read(5, 1, 100), read(5, 1, 103), read(29.9, 1, 103), read(10, 1, 100)).wrong == 0


def test_reads_that_told_no_count_are_not_judged() -> None:
    found = judged(Read(0, 25, 1.0, "error", 1, -1), Read(0, 25, 1.0, "ok", 0, -1))
    assert (found.answers, found.wrong) == (0, 0)


def test_a_time_line_counts_by_the_second_in_which_a_read_was_due() -> None:
    reads = [Read(100.0, 100.0, 2_000, "ok", 1, 1), Read(100.9, 103.0, 4_000, "ok", 1, 1), Read(101.5, 101.5, 9e6, "timeout", 1, -1)]
    first, second = moments(Found(began=100.0, reads=reads))
    assert (first.second, first.answered, first.failed) == (0, 2, 0)
    assert first.p50_ms == pytest.approx(2, rel=0.01)
    assert first.p99_ms == pytest.approx(4, rel=0.01)
    assert second == Moment(1, 0, 1, None, None)


def timing(mode: str) -> Timing:
    return Timing(
        mode=mode,  # type: ignore[arg-type]  # one of them
        rate=10,
        fraction=None,
        repeat=0,
        seconds=1,
        reads=10,
        errors=0,
        timeouts=0,
        late_ms=0,
        histogram=histogram().encode().decode(),
    )


def test_a_journal_goes_on_where_it_was_and_forgets_what_was_half_written(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "cells.jsonl"
    journal = Journal(file, HEAD)
    journal.add(Measured(cell="times 0 view", capacity=10.0, timings=[timing("view")]))
    journal.add(Measured(cell="times 0 sql", capacity=2.0, timings=[timing("sql")]))
    with file.open("ab") as broken:
        broken.write(b'{"cell": "times 1 vi')
    again = Journal(file, HEAD)
    assert again.cells == journal.cells
    again.add(Measured(cell="times 1 view", capacity=12.0, timings=[timing("view")]))
    assert [(one.mode, one.reads_per_second) for one in capacities(Journal(file, HEAD).cells)] == [("view", [10.0, 12.0]), ("sql", [2.0])]


def test_a_journal_of_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    Journal(tmp_path / "cells.jsonl", HEAD)
    with pytest.raises(Other, match="remove it, or name another folder with --report"):
        Journal(tmp_path / "cells.jsonl", Head(scenario="even", seed=2, version="1", url=""))
