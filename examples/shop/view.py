"""The view definition of the shop: customers and their orders. All that there is to a view of one's own."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from schema.fields import Column, Count, Row, Sum


class Customers(Row, topic="customers", key="customer_id"):
    customer_id: int
    email: str
    name: str | None
    city: str | None
    joined_at: datetime


class Orders(Row, topic="orders", key="order_id"):
    order_id: int
    customer_id: int
    state: str
    cents: int
    placed_at: datetime


@dataclass
class CustomerView:
    """A customer: who it is, and what it ordered."""

    id: str
    email: Annotated[str, Column(Customers, "Where receipts go.", lookup=True)]
    name: Annotated[str | None, Column(Customers, "The name as shown.")]
    city: Annotated[str | None, Column(Customers, "Where parcels go.")]
    joined_at: Annotated[datetime, Column(Customers, "When the customer joined.")]
    order_count: Annotated[int, Count(Orders, by="customer_id", description="Orders, whatever became of them.")]
    open_count: Annotated[int, Count(Orders, by="customer_id", where={"state": "placed"}, description="Orders that wait to be paid.")]
    paid_count: Annotated[int, Count(Orders, by="customer_id", where={"state": "paid"}, description="Orders that are paid.")]
    paid_cents: Annotated[int, Sum(Orders, of="cents", by="customer_id", where={"state": "paid"}, description="What the paid ones cost.")]
