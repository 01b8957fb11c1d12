"""A view that is not about Twitter goes the whole road, by the same code: Kafka, SQL, Redis, GraphQL, audit."""

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from demo.servers.server import Server
from projectors.audit import Mismatch
from schema import graphql
from schema.definition import read_definition
from schema.fields import Row
from tests.message.running import MODES, asked, audited, every_field, projecting, spoil
from tests.message.shop import SHOWN_SINCE, Customers, CustomerView, Orders
from tests.road import Road, open_road

DEFINITION = read_definition(CustomerView)
SINCE = datetime(2024, 2, 29, 12, tzinfo=UTC)
ABROAD = datetime(2025, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
MS = 1_767_323_045_000
LARGE = 3_000_000_000
CUSTOMERS = {
    "c-17": Customers("c-17", "ada@shop.example", "Señor Ada", 2**40, 4.5, 0.25, True, None, SINCE, ABROAD),
    "ü}{ x": Customers("ü}{ x", "odd@shop.example", None, None, None, 0.0, False, True, SINCE, None),
    "9": Customers("9", "nine@shop.example", "~nine", -1, -0.1, 1e300, False, False, SINCE, SINCE),
    "c-18": Customers("c-18", "gone@shop.example", "", 0, 0.0, 0.0, True, True, SINCE, None),
}
IDS = [*CUSTOMERS, "c-404"]
C_17: dict[str, Any] = {
    "id": "c-17",
    "email": "new@shop.example",
    "nickname": "Señor Ada",
    "visits": 2**40,
    "rating": None,
    "discount": 0.25,
    "isMember": True,
    "wantsMail": False,
    "since": "2024-02-29T12:00:00Z",
    "seenAt": "2024-12-31T22:30:00Z",
    "orderCount": 5,
    "giftCount": 1,
    "paidCount": 3,
    "oddCount": 1,
    "lightCount": 1,
    "launchCount": 1,
    "paidCents": 2 * LARGE + 1,
    "refundedCents": -LARGE,
}


def order(order_id: int, customer_id: str, state: str = "open", cents: int = 100, **columns: Any) -> Orders:
    usual = {"gift_for": None, "coupon": "c", "is_express": False, "weight": None, "refund_cents": None, "placed_at": SINCE}
    return Orders(order_id=order_id, customer_id=customer_id, state=state, cents=cents, **(usual | columns))


# each order through its states; the last None: it is deleted
ORDERS: dict[int, list[Orders | None]] = {
    1: [order(1, "c-17", "open", LARGE), order(1, "c-17", "paid", LARGE)],
    2: [order(2, "9", "paid", LARGE, gift_for="c-17"), order(2, "c-17", "paid", LARGE, gift_for="9")],
    3: [order(3, "c-17", "paid", 1, placed_at=SHOWN_SINCE, refund_cents=-LARGE), order(3, "c-17", "paid", 1, placed_at=SHOWN_SINCE), None],
    4: [order(4, "c-17", "paid", 1, placed_at=SHOWN_SINCE, refund_cents=-LARGE, gift_for="c-17")],
    5: [order(5, "c-17", 'it\'s \\ "odd"', LARGE, coupon=None, is_express=True)],
    6: [order(6, "c-17", "Paid", LARGE, weight=0.1)],
    7: [order(7, "c-404", "paid", LARGE)],
    8: [order(8, "ü}{ x", "paid", -1), order(8, "ü}{ x", "open", -1)],
    9: [order(9, "c-18", "paid", LARGE)],
}


def publish(road: Road, states: list[Any]) -> None:
    for before, after in itertools.pairwise([None, *states]):
        road.publisher.publish("c" if before is None else "d" if after is None else "u", before, after, MS)


def publish_all(road: Road) -> None:
    """Everyone and their orders; then c-17 changes, c-18 goes and comes back, 9 goes and their email is taken by another."""
    ada, gone, nine = CUSTOMERS["c-17"], CUSTOMERS["c-18"], CUSTOMERS["9"]
    changed = {"email": "new@shop.example", "rating": None, "wants_mail": False}
    publish(road, [ada, msgspec.structs.replace(ada, **changed)])
    publish(road, [gone, None, msgspec.structs.replace(gone, nickname="back")])
    publish(road, [nine, None])
    publish(road, [CUSTOMERS["ü}{ x"], msgspec.structs.replace(CUSTOMERS["ü}{ x"], email=nine.email)])
    for states in ORDERS.values():
        publish(road, states)


@pytest.fixture(scope="module")
async def road(kafka_at: Server, redis_at: Server, postgres_at: Server) -> AsyncIterator[Road]:
    """The shop's whole road, its projector running and level."""
    async with open_road(kafka_at, redis_at, postgres_at, view=CustomerView) as opened, projecting(opened):
        publish_all(opened)
        await opened.sunk()
        assert await opened.agree() == 3
        yield opened


async def everyone(road: Road) -> dict[str, Any]:
    query = f"query ($ids: [ID!]!) {{ customers(ids: $ids) {{ {every_field(DEFINITION)} }} }}"
    answers = await asked(road, query, ids=IDS)
    assert {mode: answer.headers["viewgate-mode"] for mode, answer in answers.items()} == {mode: mode for mode in MODES}
    assert len({answer.content for answer in answers.values()}) == 1
    body = msgspec.json.decode(answers["view"].content, type=dict[str, Any])
    assert body.keys() == {"data"}
    return dict(zip(IDS, body["data"]["customers"], strict=True))


async def test_a_customer_is_answered_in_every_mode_as_the_changes_tell(road: Road) -> None:
    found = await everyone(road)
    assert found["c-17"] == C_17
    assert [found["9"], found["c-404"]] == [None, None]
    odd, back = found["ü}{ x"], found["c-18"]
    assert (odd["orderCount"], odd["paidCount"], odd["paidCents"]) == (1, 0, 0)
    assert (back["nickname"], back["paidCount"], back["paidCents"]) == ("back", 1, LARGE)


@pytest.mark.parametrize(
    ("email", "bearer"),
    [("new@shop.example", "c-17"), ("ada@shop.example", None), ("nine@shop.example", "ü}{ x"), ("odd@shop.example", None), ("", None)],
)
async def test_a_customer_is_found_by_the_email_they_bear_now(road: Road, email: str, bearer: str | None) -> None:
    answers = await asked(road, "query ($email: String!) { customerByEmail(email: $email) { id email } }", email=email)
    expected = None if bearer is None else {"id": bearer, "email": email}
    assert [answer.json() for answer in answers.values()] == [{"data": {"customerByEmail": expected}}] * len(MODES)


async def test_an_update_and_a_delete_later_reach_every_field(road: Road) -> None:
    guest = Customers("guest", "guest@shop.example", None, 1, 0.5, 0.5, False, None, SINCE, None)
    publish(road, [guest, msgspec.structs.replace(guest, visits=2)])
    publish(road, [order(100, "guest", "paid", 2**40), order(100, "guest", "open", 2**40), None])
    publish(road, [order(101, "guest", "open", 2**40), order(101, "guest", "paid", 2**40 + 1)])
    await road.sunk()
    assert await road.agree() == 4
    answers = await asked(road, '{ customer(id: "guest") { visits orderCount paidCount paidCents } }')
    expected = {"visits": 2, "orderCount": 1, "paidCount": 1, "paidCents": 2**40 + 1}
    assert [answer.json() for answer in answers.values()] == [{"data": {"customer": expected}}] * len(MODES)
    road.publisher.publish("d", msgspec.structs.replace(guest, visits=2), None, MS)
    await road.sunk()
    assert await road.agree() == 3


async def test_the_audit_finds_nothing_and_then_the_one_field_that_was_spoilt(road: Road) -> None:
    assert await audited(road) == []
    right = str(C_17["paidCents"]).encode()
    await spoil(road, "c-17", "paid_cents", b"7")
    assert await audited(road) == [Mismatch("c-17", "paid_cents", b"7", right)]
    await spoil(road, "c-17", "paid_cents", right)
    assert await audited(road) == []


def test_sums_and_integer_columns_are_large_in_graphql_and_counts_are_not() -> None:
    sdl = graphql.sdl(DEFINITION)
    for line in (
        "paidCents: BigInt!",
        "visits: BigInt\n",
        "paidCount: Int!",
        "rating: Float\n",
        "isMember: Boolean!",
        "seenAt: DateTime\n",
    ):
        assert f"  {line}" in sdl


def test_the_second_definition_has_every_kind_of_column() -> None:
    """So that the tests above leave none out."""
    kinds = {(f.type, f.nullable) for f in DEFINITION.columns}
    assert kinds >= {(kind, nullable) for kind in (bool, float, datetime) for nullable in (False, True)} | {(str, True), (int, True)}
    assert all(issubclass(row, Row) for row in DEFINITION.rows)
