"""The transactional outbox: its table in PostgreSQL, what is put into it, and the view whose changes come by it."""

from dataclasses import dataclass, replace
from types import new_class
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import asyncpg

from demo.drift.rows import Changed, Connection
from demo.publish import envelope
from schema import user
from schema.definition import Definition
from schema.fields import Row

TABLE = "outbox"


async def create_outbox(connection: asyncpg.Connection | asyncpg.Pool, definition: Definition) -> None:
    """One table, with a partition for each kind of row: a partition is captured as a table of its own, so it has a topic of its own."""
    await connection.execute(
        f"CREATE TABLE {TABLE} (id bigint GENERATED ALWAYS AS IDENTITY, aggregate text NOT NULL, aggregate_id text NOT NULL, "
        "payload json NOT NULL) PARTITION BY LIST (aggregate)"
    )
    for row in definition.rows:
        await connection.execute(f"CREATE TABLE {partition(row)} PARTITION OF {TABLE} FOR VALUES IN ('{row.source.table}')")


def partition(row: type[Row]) -> str:
    """The part of the outbox that has the messages of these rows."""
    return f"{TABLE}_{row.source.table}"


async def post(connection: Connection, changed: Changed) -> None:
    """Put a change into the outbox, within the transaction that makes it."""
    await connection.execute(_INSERT, *message(changed))


def message(changed: Changed) -> tuple[str, str, str]:
    """As it lies in the outbox: aggregate, its id, payload."""
    source = type(changed.row).source
    return source.table, str(getattr(changed.row, source.key)), envelope(*changed).decode()


_INSERT = f"INSERT INTO {TABLE} (aggregate, aggregate_id, payload) VALUES ($1, $2, $3)"  # noqa: S608  # a constant


def _by_outbox(row: type[Row]) -> type[Row]:
    words = {"topic": row.source.topic, "key": row.source.key, "table": row.source.table, "form": "outbox"}
    made: type[Row] = new_class(row.__name__, (row,), words)
    return made


_ROWS = {row: _by_outbox(row) for row in (user.Users, user.Tweets, user.Follows, user.Likes)}


def _line(hint: Any) -> Any:
    """A line of the view, its row read from the outbox."""
    if get_origin(hint) is not Annotated:
        return hint
    value_type, kind = get_args(hint)
    return Annotated[value_type, replace(kind, row=_ROWS[kind.row])]


_LINES = {name: _line(hint) for name, hint in get_type_hints(user.UserView, include_extras=True).items()}
UserView: type = dataclass(type("UserView", (user.UserView,), {"__annotations__": _LINES, "__doc__": user.UserView.__doc__}))
