"""The shop as a demo: seeded customers and orders, and the query that is asked. Its live changes are in traffic.py."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

from demo.publish import Record, record
from demo.scenario import Scenario, Seed
from demo.seed import popular
from examples.shop.view import Customers, Orders

VERSION = 1
ORDERS_EACH = 10
SINCE = datetime(2024, 1, 1, tzinfo=UTC)
FIRST = ("Ada", "Björn", "Chidi", "Dilan", "Eva", "Fatou", "Goran", "Hana", "Ines", "Jun", "Kofi", "Lena", "Mateo")
LAST = ("Abe", "Berg", "Costa", "Diallo", "Eriksen", "Fischer", "Ng", "Novák", "Okafor", "Rossi", "Silva")
CITIES = (None, "Berlin", "Kraków", "Lagos", "München", "Osaka", "São Paulo")


def records(customers: int) -> Iterator[Record]:
    """So many customers and ten orders for each, all as inserts: the same every time."""
    dice = random.Random(VERSION)
    for number in range(1, customers + 1):
        row = customer(number)
        yield record("c", None, row, _ms(row.joined_at))
    for number in range(1, customers * ORDERS_EACH + 1):
        (state,) = dice.choices(("paid", "placed", "cancelled"), (80, 12, 8))
        placed_at = SINCE + timedelta(seconds=dice.randrange(50_000_000))
        order = Orders(number, popular(dice, customers), state, dice.randrange(199, 20_000), placed_at)
        yield record("c", None, order, _ms(placed_at))


def customer(number: int) -> Customers:
    """The seeded customer of this id."""
    first, last = FIRST[number % len(FIRST)], LAST[number % len(LAST)]
    joined_at = SINCE + timedelta(minutes=number * 17)
    return Customers(number, f"customer{number}@shop.example", f"{first} {last}", CITIES[number % len(CITIES)], joined_at)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _seed(customers: int) -> Seed:
    return Seed(customers * (1 + ORDERS_EACH), partial(records, customers), ("examples.shop.traffic", str(customers)))


SHOP = Scenario(
    name="shop",
    view="examples.shop.view:CustomerView",
    query='{ customer(id: "1") { email name city joinedAt orderCount openCount paidCount paidCents } }',
    full=_seed(40_000),
    small=_seed(4_000),
    version=VERSION,
)
