"""What a demo shows: a view, its rows, one query and live changes. Starts nothing and publishes nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from app.cli import CommandError
from app.views import NotFound, named
from demo import seed
from demo.publish import Record


@dataclass(frozen=True, slots=True)
class Seed:
    """What is published before the query is asked.

    rows: how many changes. records: makes them anew at each call, the same every time (demo/publish.py makes one of a row).
    traffic: the live changes that fit, as the words after `python -m`, told of Kafka by the settings; empty: none.
    written: the same where services write PostgreSQL, for change data capture. writes, writes_sql: both of the service behind the button
    of /compare, as the words after `python -m`; empty: there is none.
    """

    rows: int
    records: Callable[[], Iterable[Record]]
    traffic: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    writes_sql: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A demo of one view.

    name: of its folder, so that two scenarios never share data. view: module:class, as in VIEWGATE_VIEW. query: asked in every mode.
    full: for real servers. small: for librdkafka's mock broker, which keeps 5 MiB per partition. version: another one makes
    the demo forget what it seeded before. partitions: of each topic.
    """

    name: str
    view: str
    query: str
    full: Seed
    small: Seed
    version: int = 1
    partitions: int = 6


def find(name: str) -> Scenario:
    """The scenario that module:NAME names. Raises CommandError."""
    try:
        found = named(name)
    except NotFound as error:
        raise CommandError(f"--scenario {name} cannot be loaded ({error}): {EXPECTED}") from error
    if not isinstance(found, Scenario):
        raise CommandError(f"--scenario {name} is a {type(found).__name__} and no Scenario of demo/scenario.py: {EXPECTED}")
    return found


EXPECTED = "write module:NAME of a scenario, such as demo.scenario:USERS or examples.shop.scenario:SHOP."


def _users(size: seed.Size) -> Seed:
    live = ("app", "traffic", "--rate", "20", "--users", str(size.users))
    writes = ("demo.follows", "--users", str(size.users))
    return Seed(size.rows, partial(seed.records, size), live, (*live, "--sql"), writes, (*writes, "--sql"))


USERS = Scenario(
    name="users",
    view="schema.user:UserView",
    query='{ user(id: "1") { username name location joinedAt tweetCount followingCount followerCount likeCount } }',
    full=_users(seed.FULL),
    small=_users(seed.SMALL),
    version=seed.VERSION,
)
