"""What a connector sends again at new offsets: dropped, whatever shares a pair and wherever reading begins; what cannot be told stops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projectors.fold import Changes
from projectors.records.envelope import Change, Op, decoder
from projectors.repeats import NotTold, Repeats
from schema.fields import Row
from schema.positions import Run, Watermark


class Marks(Row, topic="marks", key="mark_id", position="debezium"):
    mark_id: int


def change(op: Op, key: int, pair: tuple[int, int] | None, ts_ms: int = 1) -> Change[Marks]:
    row = Marks(key)
    return Change(op, None if op in "cr" else row, None if op == "d" else row, ts_ms, pair)


def at_offsets(*changes: Change[Marks]) -> Changes:
    """With gaps between them."""
    return [(2 * number, one) for number, one in enumerate(changes)]


def offsets(changes: Changes) -> list[int]:
    return [offset for offset, _ in changes]


Sent = list[tuple[int, int]]


@st.composite
def logs(draw: st.DrawFn) -> tuple[Changes, list[int]]:
    """Changes in the order of their pairs, many with one pair, stretches of which come again; and the offsets at which each came first."""
    pair, changes, used = (0, 1), list[Change[Marks]](), set[tuple[int, str]]()
    for number in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            # the LSN itself goes back where transactions ran side by side
            used, pair = set(), draw(st.sampled_from([(pair[0], pair[1] + 1), (pair[0] + 9, draw(st.integers(1, pair[0] + 18)))]))
        ops = [one for one in ("c", "u", "d") for key in (draw(st.integers(0, 2)),) if (key, one) not in used]
        if ops:
            op: Op = draw(st.sampled_from(ops))
            key = next(key for key in range(3) if (key, op) not in used)
            used.add((key, op))
            changes.append(change(op, key, pair, draw(st.integers(1, 9)) + number))
    sent, first = [(one, number) for number, one in enumerate(changes)], list[int]()
    for _ in range(draw(st.integers(0, 3))):
        # how far it had come, and how far back it begins; never into a first transaction that is over: see the test of that
        end = draw(st.integers(0, len(sent)))
        done = max((number for _, number in sent[:end]), default=-1)
        over = [number for number in range(done + 1) if changes[number].pair[0]]  # type: ignore[index]  # each has one
        begin = draw(st.integers(over[0] if over else 0, max(done, over[0] if over else 0)))
        sent = sent[:end] + [(changes[number], number) for number in range(begin, len(changes))]
    seen = set[int]()
    for place, (_, number) in enumerate(sent):
        if number not in seen:
            first.append(2 * place)
            seen.add(number)
    return at_offsets(*(one for one, _ in sent)), first


@given(log=logs(), size=st.integers(1, 5))
def test_each_change_is_new_once_and_where_it_first_came(log: tuple[Changes, list[int]], size: int) -> None:
    sent, first = log
    repeats = Repeats()
    assert [offset for at in range(0, len(sent), size) for offset in offsets(repeats.fresh(sent[at : at + size]))] == first


@given(log=logs(), stop=st.integers(0, 20))
def test_who_goes_on_from_the_start_of_a_run_finds_the_same_changes_new(log: tuple[Changes, list[int]], stop: int) -> None:
    sent, first = log
    before = Repeats()
    before.fresh(sent[:stop])
    if before.run is not None:
        start, newest_ms = before.run.start, max(one.ts_ms or 0 for _, one in sent[:stop])
        again, whole = Repeats(newest_ms), Repeats()
        assert offsets(again.fresh([one for one in sent if one[0] >= start])) == [offset for offset in first if offset >= start]
        whole.fresh(sent)
        assert again.run == whole.run


@given(log=logs(), stop=st.integers(1, 20))
def test_without_the_start_of_a_run_nothing_is_counted_twice_or_left_out_unsaid(log: tuple[Changes, list[int]], stop: int) -> None:
    sent, first = log
    before = Repeats()
    before.fresh(sent[:stop])
    assert before.run is not None
    again = Repeats(max(one.ts_ms or 0 for _, one in sent[:stop]))
    again.forget(before.run, covered=2 * stop)
    rest, new = sent[stop:], [offset for offset in first if offset >= 2 * stop]
    found = offsets(again.told(rest))
    # it stops where a change came at the pair of the run before a higher one, and nowhere else
    over = next((offset for offset, one in rest if one.pair is not None and one.pair > before.run.pair), rest[-1][0] + 1 if rest else 0)
    unsaid = [offset for offset, one in rest if one.pair == before.run.pair and offset < over]
    assert found == ([offset for offset in new if offset < unsaid[0]] if unsaid else new)


def test_what_is_applied_everywhere_need_not_be_told_without_the_start_of_a_run() -> None:
    repeats = Repeats()
    repeats.forget(Run((7, 9), 0), covered=4)
    assert offsets(repeats.fresh(at_offsets(change("c", 1, (7, 9)), change("c", 2, (7, 9)), change("c", 1, (7, 9))))) == [0, 2]
    assert offsets(repeats.fresh([(6, change("c", 3, (8, 1))), (8, change("c", 4, (8, 1)))])) == [6, 8]


def test_rows_that_share_a_pair_are_all_counted_and_none_twice() -> None:
    page = [change("c", key, (7, 9)) for key in range(4)]
    assert offsets(Repeats().fresh(at_offsets(*page, *page[2:]))) == [0, 2, 4, 6]


def test_the_delete_and_the_create_of_a_key_update_share_a_pair_and_both_count() -> None:
    assert offsets(Repeats().fresh(at_offsets(change("d", 1, (7, 9)), change("c", 1, (7, 9))))) == [0, 2]


def test_an_lsn_that_goes_back_under_a_later_commit_is_new() -> None:
    assert offsets(Repeats().fresh(at_offsets(change("c", 1, (7, 90)), change("c", 2, (8, 20))))) == [0, 2]


def test_a_lower_pair_that_was_committed_later_is_a_database_gone_back() -> None:
    with pytest.raises(NotTold, match=r"offset 2 is at LSN 0/A, behind what is counted.*restored, or failed over"):
        Repeats().fresh(at_offsets(change("c", 1, (90, 99), 5), change("c", 2, (7, 10), 6)))


def test_a_database_that_has_gone_back_is_noticed_by_who_reads_on_from_a_watermark() -> None:
    with pytest.raises(NotTold, match="restored"):
        Repeats(newest_ms=5).fresh(at_offsets(change("c", 1, (90, 99), 4), change("c", 2, (7, 10), 6)))
    assert offsets(Repeats(newest_ms=6).fresh(at_offsets(change("c", 1, (90, 99), 4), change("c", 2, (7, 10), 6)))) == [0]


def test_a_connector_without_its_offsets_stops_a_live_generation() -> None:
    log = at_offsets(change("c", 1, (90, 99)), change("c", 2, (0, 80)))
    with pytest.raises(NotTold, match="it has lost its offsets"):
        Repeats().fresh(log, live_from=2)
    # while it is built, what lies below a commit that was streamed is the first transaction, sent again
    assert offsets(Repeats().fresh(log, live_from=4)) == [0]
    with pytest.raises(NotTold, match="it has lost its offsets"):
        Repeats().fresh(at_offsets(change("c", 1, (90, 99)), change("c", 2, (0, 100))))


def test_the_rows_of_a_snapshot_share_a_pair_and_changes_follow_them() -> None:
    rows = [change("r", key, (0, 50)) for key in range(3)]
    assert offsets(Repeats().fresh(at_offsets(*rows, rows[1], change("u", 1, (0, 60)), change("u", 2, (60, 70))))) == [0, 2, 4, 8, 10]


def test_a_snapshot_that_was_begun_anew_is_not_added_to_its_first_half() -> None:
    with pytest.raises(NotTold, match=r"at offset 4 a snapshot was begun anew, at LSN 1/2"):
        Repeats().fresh(at_offsets(change("r", 1, (0, 50)), change("r", 2, (0, 50)), change("r", 1, (0, 2**32 + 2))))


def test_the_time_of_a_change_is_its_commit_s_for_the_connector_s_own_is_another_one_each_time() -> None:
    value = b'{"op":"c","after":{"mark_id":1},"ts_ms":%d,"source":{"sequence":"[null,\\"5\\"]","ts_ms":7}}'
    assert [decoder(Marks)(value % sent_ms).ts_ms for sent_ms in (8, 9)] == [7, 7]


def test_a_replay_of_the_log_ends_where_a_projector_stops() -> None:
    repeats, lost = Repeats(), change("c", 2, (0, 100))
    assert offsets(repeats.told(at_offsets(change("c", 1, (90, 99)), lost, change("c", 3, (91, 99))))) == [0]
    assert repeats.told([(6, change("c", 4, (92, 99)))]) == []


def test_a_change_without_a_pair_is_refused() -> None:
    with pytest.raises(NotTold, match="no pair"):
        Repeats().fresh(at_offsets(change("c", 1, None)))


numbers = st.integers(0, 2**63)
runs = st.none() | st.builds(Run, st.tuples(numbers, numbers), numbers)


@given(offset=numbers, ts_ms=numbers, topic_id=st.from_regex(r"\A[A-Za-z0-9_-]{0,22}\Z"), run=runs)
def test_a_watermark_with_its_run_is_read_as_it_was_written(offset: int, ts_ms: int, topic_id: str, run: Run | None) -> None:
    watermark = Watermark(offset, ts_ms, topic_id, run)
    assert Watermark.decode(watermark.encode()) == watermark
    assert watermark.encode().count(b"|") == (2 if run is None else 5)
    assert watermark.begins == (offset if run is None else run.start)


@given(steps=st.lists(st.integers(0, 9), min_size=1))
def test_a_watermark_keeps_the_run_of_its_highest_offset(steps: list[int]) -> None:
    watermark = Watermark(0, 0, "")
    for offset in steps:
        watermark = watermark.advanced(offset, 0, Run((offset, offset), offset))
    assert watermark == Watermark(max(steps), 0, "", Run((max(steps), max(steps)), max(steps)) if max(steps) else None)
