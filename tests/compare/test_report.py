"""A report built from a recorded run equals what its JSON says, and stands by itself."""

import html
import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from PIL import Image

from bench.compare import report
from bench.compare import results as recorded_form
from bench.compare.results import Effort, Results
from bench.compare.wording import number, percent
from schema.loader import Mode
from tests.compare.recorded import MODES, recorded
from tests.compare.tabulated import Cell, Tables

LARGEST_PAGE = 3_000_000
PERCENTS = {"p50": 50.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "index.html").read_text()


@pytest.fixture(scope="module")
def told(page: str) -> Tables:
    parsed = Tables()
    parsed.feed(page)
    return parsed


@pytest.fixture(scope="module")
def read(folder: Path) -> Results:
    """From the JSON, and from nothing else."""
    return recorded_form.read(folder / "results.json")


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found


def test_the_json_is_the_run(read: Results, results: Results) -> None:
    assert read == results


def test_percentiles_are_those_of_the_histograms_of_all_repeats(told: Tables, read: Results) -> None:
    assert len(told.rows["latency"]) == 12
    for mode in MODES:
        for rate in (200.0, 1_000.0, 2_000.0):
            timings = [one for one in read.timings if (one.mode, one.rate, one.fraction) == (mode, rate, None)]
            whole = HdrHistogram(1, 60_000_000, 3)
            for one in timings:
                whole.decode_and_add(one.histogram)
            row = told.of("latency", f"{rate:,.0f}/s, {mode}")
            for name, at in PERCENTS.items():
                cell = row[f"{name}, ms"]
                assert cell.value == whole.get_value_at_percentile(at) / 1000
                assert cell.low is not None
                assert cell.high is not None
                assert cell.low <= whole.get_value_at_percentile(at) / 1000 <= cell.high
            failed = sum(one.errors + one.timeouts for one in timings)
            assert row["failed"].value == pytest.approx(100 * failed / sum(one.reads for one in timings))
            assert row["of them timed out"].value == sum(one.timeouts for one in timings)
            assert row["sent late by up to, ms"].value == max(one.late_ms for one in timings)


def test_reads_that_timed_out_count_with_the_time_they_took(told: Tables) -> None:
    row = told.of("latency", "2,000/s, sql")
    assert row["failed"].value
    assert row["failed"].value > 0
    assert row["max, ms"].value
    assert row["max, ms"].value > 5_000


def test_capacities_hits_and_staleness_are_the_runs(told: Tables, read: Results) -> None:
    for one in read.capacities:
        assert told.of("capacities", one.mode)["reads/s"].value == pytest.approx(mean(one.reads_per_second))
    for hits in read.hits:
        column = f"{hits.mode}, {'cold' if hits.cold else 'warm'}"
        for table, place, here in (
            ("hits-by-skew", hits.skew, hits.ttl_seconds == 30.0),
            ("hits-by-ttl", hits.ttl_seconds, hits.skew == 1.0),
        ):
            if here:
                row = told.of(table, f"{place:g}")
                assert row[column].value == pytest.approx(100 * hits.hits / hits.rows)
                assert row["view"].value == 100
    for stale in read.staleness:
        row = told.of("staleness", f"{stale.mode}, 1,000 changes/s")
        assert (row["answers"].value, row["wrong"].value) == (stale.answers, stale.wrong)
        assert row["share that was wrong"].value == pytest.approx(100 * stale.wrong / stale.answers)
        if stale.wrong:
            assert row["age max, ms"].value == max(stale.ages_ms)
            assert row["age p50, ms"].value == sorted(stale.ages_ms)[int(len(stale.ages_ms) / 2 + 0.5) - 1]
        else:
            assert row["age p50, ms"].text == "none wrong"


def net(read: Results, mode: Mode, kind: str, name: str) -> float:
    """Of one read or change, less the idle stack; all repeats together."""

    def total(of: str, what: str) -> float:
        told: list[Effort] = [one for one in read.efforts if (one.mode, one.kind) == (mode, of)]
        return float(sum(getattr(one, what) for one in told))

    idle = total("idle", name) / total("idle", "seconds") * total(kind, "seconds")
    return max(total(kind, name) - idle, 0.0) / total(kind, "reads" if kind == "reads" else "changes")


def test_efforts_and_memory_are_the_runs(told: Tables, read: Results) -> None:
    for mode in MODES:
        row = told.of("load", mode)
        assert row["SQL queries"].value == pytest.approx(1e3 * net(read, mode, "reads", "postgres_queries"))
        assert row["PostgreSQL, CPU ms"].value == pytest.approx(1e6 * net(read, mode, "reads", "postgres_cpu"))
        assert row["gateway, CPU ms"].value == pytest.approx(1e6 * net(read, mode, "reads", "gateway_cpu"))
    assert told.of("writes", "view")["projector, CPU ms"].value == pytest.approx(1e6 * net(read, "view", "writes", "projector_cpu"))
    assert told.of("load", "sql")["Redis commands"].text == "no part"
    for one in read.memory:
        row = told.of("memory", one.mode)
        assert row["MB"].value == pytest.approx(one.redis_bytes / 1e6)
        assert row["MB if all users were kept"].value == pytest.approx(one.redis_bytes / one.rows * read.users / 1e6)


def test_what_was_not_measured_says_so_and_is_never_0(told: Tables) -> None:
    hidden = told.of("writes", "cache-invalidate")["PostgreSQL, CPU ms"]
    assert (hidden.text, hidden.value) == ("not measured", None)
    assert {cell.text for cell in told.of("costs", "cache-invalidate").values()} == {"not measured"}
    assert told.of("summary", "cents for a million reads")["cache-invalidate"].text == "not measured"


def test_costs_are_what_a_hand_computes_of_the_json(told: Tables, read: Results) -> None:
    gateway, redis, postgres = (price / 3600 for price in (0.04, 0.05, 0.09))
    cpu = {name: net(read, "view", "reads", f"{name}_cpu") for name in ("gateway", "projector", "redis", "postgres")}
    reads = 1e8 * ((cpu["gateway"] + cpu["projector"]) * gateway + cpu["redis"] * redis + cpu["postgres"] * postgres)
    row = told.of("costs", "view")
    assert row["reads"].value == pytest.approx(reads)
    assert row["memory"].value == pytest.approx(1e8 * read.memory[0].redis_bytes / 1e9 * 10 / (1_000 * 3600 * 730))
    parts = [row[name].value for name in ("reads", "changes", "memory", "what the view alone needs")]
    assert row["total"].value == pytest.approx(sum(part for part in parts if part))


def test_every_number_is_told_as_it_is(told: Tables) -> None:
    cells: list[Cell] = [cell for rows in told.rows.values() for row in rows.values() for cell in row]
    numbers = [cell for cell in cells if cell.value is not None]
    assert len(numbers) > 300
    for cell in numbers:
        assert cell.value is not None
        assert float(cell.text.replace(",", "").removesuffix(" %")) == pytest.approx(cell.value, rel=0.006)
        if cell.small:
            ends = [float(end.replace(",", "").removesuffix(" %")) for end in cell.small.split(" to ")]
            assert ends == pytest.approx([cell.low, cell.high], rel=0.006)


def test_no_two_rows_of_a_table_have_one_name(page: str) -> None:
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        names = re.findall(r'data-row="([^"]*)"', table)
        assert len(names) == len(set(names))


def test_figures_json_has_every_table_of_the_page(told: Tables, figures: dict[str, Any]) -> None:
    assert set(figures["tables"]) == set(told.rows)
    for name, rows in told.rows.items():
        for row, cells in rows.items():
            kept = figures["tables"][name]["rows"][row]
            for column, cell in zip(told.columns[name][1:], cells, strict=True):
                value = kept[column]["value"] if isinstance(kept[column], dict) else kept[column]
                assert value == cell.value if cell.value is not None else value in {cell.text, None}


def test_the_verdict_rests_on_tables_that_are_there(page: str, told: Tables, figures: dict[str, Any], results: Results) -> None:
    sentences = figures["verdict"]
    assert len(sentences) > 20
    for sentence in sentences:
        assert html.escape(sentence["words"]) in page
        assert set(sentence["rests_on"]) <= set(told.rows)
    p99 = told.of("latency", "1,000/s, view")["p95, ms"]
    assert any(f"p95 {p99.text} (95 %: {p99.small}) ms of 5" in sentence["words"] for sentence in sentences)


def test_the_method_is_told_whole(page: str, results: Results) -> None:
    text = html.unescape(re.sub(r"<[^>]*>", " ", page[page.index('<section id="method">') :]))
    given = [
        results.command,
        results.machine,
        results.versions,
        results.publishing,
        results.began,
        *results.order,
        *results.definition.values(),
    ]
    given += [results.discarded[0].cell, results.discarded[0].reason, "4,000", "5, interleaved", "200/s, 1,000/s, 2,000/s", "results.json"]
    assert [one for one in given if one not in text] == []


def test_every_picture_is_a_file_twice_and_in_the_page_with_words(folder: Path, page: str) -> None:
    files = {path.stem for path in folder.glob("*.png")}
    names = {name for name in files if not name.endswith("-dark")}
    assert files == names | {f"{name}-dark" for name in names}
    assert set(re.findall(r'id="picture-([^"]+)"', page)) == names
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', page)
    assert len(alts) == len(names) == 18
    assert all(len(alt) > 60 for alt in alts)
    for kind, paper in (("", (255, 255, 255)), ("-dark", (20, 23, 28))):
        with Image.open(folder / f"memory{kind}.png") as picture:
            assert picture.convert("RGB").getpixel((2, 2)) == pytest.approx(paper, abs=3)


def test_the_page_is_one_file_of_a_bearable_size_that_names_no_other(page: str) -> None:
    assert len(page) < LARGEST_PAGE
    assert re.findall(r'(?:src|href|srcset)="(?!data:|#)[^"]*"', page) == []
    assert "://" not in page
    assert "default-src 'none'" in page


def test_text_of_a_run_is_text_and_not_markup(page: str) -> None:
    assert "username name &lt;tweetCount&gt; &amp; followerCount" in page
    assert "<tweetCount>" not in page


def test_a_quick_look_has_pictures_and_no_verdict_and_is_the_same_each_time(tmp_path: Path) -> None:
    results = recorded(repeats=1, quick=True, modes=["view", "cache-aside"])
    results = msgspec.structs.replace(results, timelines=[], timings=[one for one in results.timings if one.rate == 1_000.0])
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        report.write(results, folder)
    figures = json.loads((first / "figures.json").read_text())
    assert (figures["verdict"], figures["no_verdict"]) == ([], "A quick look: pictures and numbers, no verdict.")
    assert html.escape(figures["no_verdict"]) in (first / "index.html").read_text()
    assert len(list(first.glob("*.png"))) == 24
    for path in sorted(first.iterdir()):
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_run_in_which_nothing_was_measured_has_a_report_that_says_so(tmp_path: Path) -> None:
    lists = ("capacities", "timings", "hits", "staleness", "efforts", "memory", "timelines", "discarded")
    nothing: dict[str, Any] = {name: [] for name in lists}
    report.write(msgspec.structs.replace(recorded(repeats=1), **nothing), tmp_path)
    told = Tables()
    told.feed((tmp_path / "index.html").read_text())
    assert {cell.text for row in told.rows["costs"].values() for cell in row[:1]} == {"not measured"}
    assert told.of("summary", "most reads/s")["view"].text == "not measured"


def test_numbers_have_three_digits_and_percents_never_lie_about_all_or_nothing() -> None:
    assert [number(value) for value in (0, 0.0001234, 1.005, 99.9, 99.96, 1234.5, float("inf"))] == [
        "0",
        "0.000123",
        "1",
        "99.9",
        "100",
        "1,234",
        "no end",
    ]
    assert [percent(value) for value in (0, 0.00123, 12.34, 99.97, 99.99999, 100)] == [
        "0 %",
        "0.00123 %",
        "12.3 %",
        "99.970 %",
        "99.999 %",
        "100 %",
    ]
