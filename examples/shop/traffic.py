"""Live changes of the shop, as its services would publish them: customers join, move, leave; orders are placed, paid, cancelled."""

import asyncio
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
import uvloop

from app.settings import read_settings
from app.stopping import told_to_stop
from demo.publish import Publisher
from demo.seed import popular
from examples.shop.view import Customers, Orders
from schema.fields import Row

PER_SECOND = 20
MOST_KEPT = 1000
Kept = TypeVar("Kept", Customers, Orders)


class Traffic:
    """customers: how many were seeded.

    An update and a delete must tell the row as it was, so only what this one published itself is changed later.
    """

    def __init__(self, publisher: Publisher, customers: int) -> None:
        self._publisher, self._customers = publisher, customers
        self._dice = random.Random()
        # above every id of an earlier run, and below 2^53
        self._id = time.time_ns() // 1_000_000 << 12
        self._joined: list[Customers] = []
        self._placed: list[Orders] = []
        self._paid: list[Orders] = []

    def act(self) -> None:
        """Publish one change; where there is nothing yet to change, somebody orders."""
        acts: dict[Callable[[], bool], int] = {
            self._place: 40,
            self._pay: 25,
            self._cancel: 10,
            self._refund: 3,
            self._join: 10,
            self._rename: 8,
            self._leave: 4,
        }
        (act,) = self._dice.choices(list(acts), list(acts.values()))
        if not act():
            self._place()

    def _place(self) -> bool:
        buyer = popular(self._dice, self._customers)
        if self._joined and self._dice.random() < 0.2:
            buyer = self._dice.choice(self._joined).customer_id
        order = Orders(self._next(), buyer, "placed", self._dice.randrange(199, 20_000), datetime.now(UTC))
        self._placed = [*self._placed[-MOST_KEPT:], order]
        return self._publish("c", None, order)

    def _pay(self) -> bool:
        if not self._placed:
            return False
        order = self._taken(self._placed)
        paid = msgspec.structs.replace(order, state="paid")
        self._paid = [*self._paid[-MOST_KEPT:], paid]
        return self._publish("u", order, paid)

    def _cancel(self) -> bool:
        if not self._placed:
            return False
        order = self._taken(self._placed)
        return self._publish("u", order, msgspec.structs.replace(order, state="cancelled"))

    def _refund(self) -> bool:
        """Half of what was paid; the order stays paid."""
        if not self._paid:
            return False
        order = self._taken(self._paid)
        return self._publish("u", order, msgspec.structs.replace(order, cents=order.cents // 2))

    def _join(self) -> bool:
        number = self._next()
        row = Customers(number, f"customer{number}@shop.example", f"New {number}", None, datetime.now(UTC))
        self._joined = [*self._joined[-MOST_KEPT:], row]
        return self._publish("c", None, row)

    def _rename(self) -> bool:
        if not self._joined:
            return False
        before = self._taken(self._joined)
        after = msgspec.structs.replace(before, email=f"moved{self._next()}@shop.example", city="Berlin")
        self._joined.append(after)
        return self._publish("u", before, after)

    def _leave(self) -> bool:
        """The customer goes; the orders stay."""
        return bool(self._joined) and self._publish("d", self._taken(self._joined), None)

    def _taken(self, rows: list[Kept]) -> Kept:
        return rows.pop(self._dice.randrange(len(rows)))

    def _publish(self, op: str, before: Row | None, after: Row | None) -> bool:
        self._publisher.publish(op, before, after, time.time_ns() // 1_000_000)
        return True

    def _next(self) -> int:
        self._id += 1
        return self._id


async def _main(customers: int) -> None:
    stop = told_to_stop()
    settings = read_settings()
    publisher = Publisher(settings.kafka_bootstrap, settings.topic_prefix)
    traffic = Traffic(publisher, customers)
    while not stop.is_set():
        traffic.act()
        await asyncio.sleep(1 / PER_SECOND)
    await asyncio.to_thread(publisher.flush)


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
