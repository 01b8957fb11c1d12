"""Form `outbox`: what Debezium sends of an outbox's table, to the change that lies in it."""

import json
from typing import Any

import msgspec
import pytest

from projectors.records.envelope import Undecodable
from projectors.records.outbox import decoder
from schema.fields import Row

BEFORE = {"like_id": 7, "user_id": 1}
AFTER = {"like_id": 7, "user_id": 2}


class Likes(Row, topic="likes", key="like_id", form="outbox"):
    like_id: int
    user_id: int


class PairedLikes(Row, topic="likes", key="like_id", table="likes", form="outbox", position="debezium"):
    like_id: int
    user_id: int


def message(change: Any, op: str = "c", **more: Any) -> dict[str, Any]:
    """As Debezium sends it, with more of its fields than are read."""
    row = {"id": 1, "aggregate": "likes", "aggregate_id": "7", "payload": json.dumps(change)}
    source = {"table": "outbox_likes", "sequence": '["100","200"]', "txId": 5}
    return {"op": op, "before": None, "after": None if op in "dt" else row, "source": source, "ts_ms": 9, **more}


def changed(op: str = "u", before: Any = BEFORE, after: Any = AFTER) -> dict[str, Any]:
    return {"op": op, "before": before, "after": after, "ts_ms": 5}


@pytest.mark.parametrize("in_block", [False, True])
def test_a_message_is_the_change_that_it_carries_and_not_its_own_insert(in_block: bool) -> None:
    sent = message(changed())
    change = decoder(Likes)(json.dumps({"schema": {"type": "struct", "fields": []}, "payload": sent} if in_block else sent).encode())
    assert change is not None
    assert (change.op, change.ts_ms) == ("u", 5)
    assert isinstance(change.before, Likes)
    assert isinstance(change.after, Likes)
    assert (msgspec.structs.asdict(change.before), msgspec.structs.asdict(change.after)) == (BEFORE, AFTER)


def test_the_pair_of_lsns_is_that_of_the_message() -> None:
    change = decoder(PairedLikes)(json.dumps(message(changed("c", None))).encode())
    assert change is not None
    assert change.pair == (100, 200)
    plain = decoder(Likes)(json.dumps(message(changed("c", None))).encode())
    assert plain is not None
    assert plain.pair is None


@pytest.mark.parametrize("op", ["d", "t"])
def test_a_message_that_is_tidied_away_is_no_change(op: str) -> None:
    assert decoder(Likes)(json.dumps(message(changed(), op)).encode()) is None


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (message(changed(), "r"), "set snapshot.mode=no_data"),
        (message(changed(), "u", before={"payload": "{}"}), "a message of an outbox is inserted"),
        (message(changed("u", None)), "op 'u' needs a before"),
        (message({"op": "c", "after": {"like_id": "x", "user_id": 1}}), "like_id"),
        ({"op": "c", "after": {"id": 1}}, "payload"),
        ({"nothing": 1}, "op None"),
    ],
)
def test_what_is_no_message_is_undecodable_and_says_why(sent: Any, said: str) -> None:
    with pytest.raises(Undecodable, match=said):
        decoder(Likes)(json.dumps(sent).encode())


def test_bytes_that_are_no_json_are_undecodable() -> None:
    with pytest.raises(Undecodable):
        decoder(Likes)(b"\xff")
