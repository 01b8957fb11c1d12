"""The course that changes take in each way, from the writers to the view: its topics, its view, its sink or its capture. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

VIEW = "schema.user:UserView"


@dataclass(frozen=True, slots=True)
class Course:
    """way: of ways.WAYS. prefix: of its topics. sink: whether a sink writes PostgreSQL. captured: which tables Debezium publishes.

    exact: whether view and database are to be alike in the end.
    """

    way: str
    prefix: str
    view: str = VIEW
    sink: bool = False
    captured: Literal["rows", "outbox"] | None = None
    exact: bool = True

    @property
    def database(self) -> str:
        """A name that SQL takes without quotes, and Debezium for a slot."""
        return f"drift_{self.way.replace('-', '_')}"


COURSES: Mapping[str, Course] = {
    course.way: course
    for course in (
        Course("dual-write", "dual-write.", exact=False),
        Course("publish-first", "publish-first.", exact=False),
        Course("single-write", "single-write.", sink=True),
        # Debezium's names: its prefix, the schema of the table, the table
        Course("cdc", "cdc.public.", captured="rows"),
        Course("outbox", "outbox.public.outbox_", view="demo.drift.outbox:UserView", captured="outbox"),
    )
}
