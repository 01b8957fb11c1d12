"""What a loader is: reads in, rows of JSON fragments out. The loaders themselves stand in loaders/."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

from schema.positions import Token

Mode = Literal["view", "cache-aside", "cache-invalidate", "sql"]
MODES: tuple[Mode, ...] = get_args(Mode)
# those that keep in a cache what SQL has answered
CACHED: tuple[Mode, ...] = ("cache-aside", "cache-invalidate")
Row = Sequence[bytes]


class Read(NamedTuple):
    """One thing to be read: the row whose `by` is `value`.

    by: "id" (value canonical, see layout.canonical) or a lookup field's name. fields: view fields by their snake_case names;
    "id" may be among them.
    """

    by: str
    value: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """What was read, in the order asked: for each Read a JSON fragment per field, or None where there is no such row.

    generation: the view's, None in other modes. as_of_ms: everything that happened until then is in the answer (Unix ms).
    fallback: why another mode than the one asked for has answered, None when it was the one.
    """

    rows: Sequence[Row | None]
    mode: Mode
    generation: str | None
    as_of_ms: int
    fallback: str | None = None


class Loader(Protocol):
    async def load(self, reads: Sequence[Read]) -> Rows:
        """Answer all reads of one request, in one mode. Raises LoadError."""
        ...

    async def ready(self) -> None:
        """Return when a load would be answered now. Raises the LoadError that it would raise."""
        ...


@runtime_checkable
class WaitingLoader(Protocol):
    """A loader that can know whether its answer has a write: it reads what keeps positions."""

    async def load_after(self, reads: Sequence[Read], after: Sequence[Token]) -> Rows:
        """Like `load`, of a state that has all these writes; waits for them, bounded. Raises LoadError."""
        ...


@runtime_checkable
class ImmediateLoader(Protocol):
    """A loader that can do without a task of asyncio, where nothing is out of the ordinary."""

    def begin(self, reads: Sequence[Read], done: Callable[[Rows | None], None]) -> bool:
        """Read, and call `done` from the event loop: with what `load` would answer, or None: ask `load`. False: that at once."""
        ...


async def load_after(loader: Loader, reads: Sequence[Read], after: Sequence[Token]) -> Rows:
    """Raises LoadError; AfterUnsupported where the loader cannot know."""
    if not isinstance(loader, WaitingLoader):
        raise AfterUnsupported(
            "This mode keeps no positions, so it cannot know whether an answer has your write: ask in mode view, or send no viewgate-after."
        )
    return await loader.load_after(reads, after)


class LoadError(Exception):
    """There is no answer; the message, which the client sees, says why. code: stable, for the client's program."""

    code = "UNAVAILABLE"


class ViewCannotAnswer(LoadError):
    """The view has no exact answer. Its three kinds are what a fallback answers for, and nothing else is."""


class ViewUnavailable(ViewCannotAnswer):
    """Redis cannot be reached."""

    code = "UNAVAILABLE"


class ViewNotReady(ViewCannotAnswer):
    """No generation is live, or a shard of it was lost and is not yet rebuilt."""

    code = "NOT_READY"


class FieldMissing(ViewCannotAnswer):
    """A user that is present lacks a field: never read as 0."""

    code = "FIELD_MISSING"


class SourceUnavailable(LoadError):
    """PostgreSQL cannot be reached."""


class Overloaded(LoadError):
    """As many reads of SQL as are allowed are under way; try again later."""

    code = "OVERLOADED"


class NotYet(LoadError):
    """The view has not got the writes that the answer must have, and was waited for as long as may be."""

    code = "NOT_YET"


class BadAfter(LoadError):
    """A token names what the view does not read."""

    code = "BAD_AFTER"


class AfterUnsupported(LoadError):
    """Who answers cannot know whether the answer has the writes."""

    code = "AFTER_UNSUPPORTED"
