"""Notes of what one request asks of Redis and PostgreSQL, taken only where somebody wants to see them. Asks nothing itself."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

# {"redis": the words of a command} or {"sql": the text of a statement}
Note = Mapping[str, str | Sequence[str]]

_notes: ContextVar[list[Note] | None] = ContextVar("notes", default=None)


@contextmanager
def taken() -> Iterator[Sequence[Note]]:
    """What is asked from here on, by this task and by those that it begins, in the order in which it was sent."""
    notes: list[Note] = []
    before = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(before)


def redis(commands: Sequence[Sequence[str | bytes]]) -> None:
    """These commands are about to be sent. Where nobody takes notes it costs a look."""
    notes = _notes.get()
    if notes is not None:
        notes += [
            {"redis": [word if isinstance(word, str) else word.decode("utf-8", "replace") for word in command]} for command in commands
        ]


def sql(statement: str) -> None:
    """This statement is about to be sent."""
    notes = _notes.get()
    if notes is not None:
        notes.append({"sql": statement})
