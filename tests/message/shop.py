"""A view that is not about Twitter: customers with string keys, and every kind of field and column that a definition may have."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from schema.fields import Column, Count, Row, Sum

SHOWN_SINCE = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)


class Customers(Row, topic="customers", key="customer_id"):
    customer_id: str
    email: str
    nickname: str | None
    visits: int | None
    rating: float | None
    discount: float
    is_member: bool
    wants_mail: bool | None
    since: datetime
    seen_at: datetime | None


class Orders(Row, topic="orders", key="order_id", table="placed orders"):
    order_id: int
    customer_id: str
    gift_for: str | None
    state: str
    coupon: str | None
    is_express: bool
    weight: float | None
    cents: int
    refund_cents: int | None
    placed_at: datetime


@dataclass
class CustomerView:
    """A customer and what they ordered."""

    id: str
    email: Annotated[str, Column(Customers, "Where mail goes.", lookup=True)]
    nickname: Annotated[str | None, Column(Customers, prefix="Señor ")]
    visits: Annotated[int | None, Column(Customers, "Visits to the shop.")]
    rating: Annotated[float | None, Column(Customers)]
    discount: Annotated[float, Column(Customers)]
    is_member: Annotated[bool, Column(Customers)]
    wants_mail: Annotated[bool | None, Column(Customers)]
    since: Annotated[datetime, Column(Customers)]
    seen_at: Annotated[datetime | None, Column(Customers)]
    order_count: Annotated[int, Count(Orders, by="customer_id", description="Orders in any state.")]
    gift_count: Annotated[int, Count(Orders, by="gift_for")]
    paid_count: Annotated[int, Count(Orders, by="customer_id", where={"state": "paid"})]
    odd_count: Annotated[int, Count(Orders, by="customer_id", where={"coupon": None, "is_express": True, "state": 'it\'s \\ "odd"'})]
    light_count: Annotated[int, Count(Orders, by="customer_id", where={"weight": 0.1})]
    launch_count: Annotated[int, Count(Orders, by="customer_id", where={"placed_at": SHOWN_SINCE})]
    paid_cents: Annotated[int, Sum(Orders, of="cents", by="customer_id", where={"state": "paid"})]
    refunded_cents: Annotated[int, Sum(Orders, of="refund_cents", by="customer_id")]
