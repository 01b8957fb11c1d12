"""Up to when a partition is in the view, by the times that its changes bear."""

from projectors.reading import Reading
from schema.positions import Partition, Watermark
from schema.user import Tweets

NOW = 1_767_323_045_000


def reading(ts_ms: int) -> Reading:
    return Reading(Partition("tweets", 0), Tweets, {0: Watermark(5, ts_ms, "id")}, 5, 5, ts_ms)


def test_a_partition_is_in_the_view_up_to_its_newest_change_and_up_to_now_where_nothing_is_left() -> None:
    one = reading(NOW - 900)
    one.go_on(7, NOW - 400, NOW)
    one.go_on(8, NOW - 500, NOW)
    assert (one.as_of_ms(NOW, 9), one.as_of_ms(NOW, 8)) == (NOW - 400, NOW)


def test_a_time_that_has_not_come_yet_tells_nothing() -> None:
    one = reading(NOW - 900)
    one.go_on(7, NOW + 60_000, NOW)
    assert one.as_of_ms(NOW, 9) == NOW - 900
    # the watermark has it: what comes again is told by the newest time of all
    assert one.folded.ts_ms == NOW + 60_000
    assert reading(NOW + 60_000).as_of_ms(NOW, 9) == 0
