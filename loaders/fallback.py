"""Answers from another mode when, and only when, the view cannot: at once, at most so many at a time, and saying so."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from loaders.turns import Turns
from schema.loader import AfterUnsupported, ImmediateLoader, Loader, Read, Rows, ViewCannotAnswer, load_after
from schema.positions import Token

SENTENCE = "The view cannot answer, and as many requests as allowed are being answered without it; try again."


class FallbackLoader:
    """`view`, and where it cannot answer, `other`.

    limit: how many loads of `other` may run at once; it counts with SQL, and all the view's traffic would bring it down.
    wait_seconds: how long a load may wait for its turn. Rows.fallback is the code of the view's error.
    """

    def __init__(self, view: Loader, other: Loader, limit: int, wait_seconds: float) -> None:
        self._view = view
        self._other = other
        self._turns = Turns(limit, wait_seconds, SENTENCE)

    @property
    def view(self) -> Loader:
        """The view by itself."""
        return self._view

    async def load(self, reads: Sequence[Read]) -> Rows:
        """One request in one mode: the view's rows, or the other's for all reads. Raises LoadError, but no ViewCannotAnswer."""
        try:
            return await self._view.load(reads)
        except ViewCannotAnswer as reason:
            async with self._turns.turn():
                return replace(await self._other.load(reads), fallback=reason.code)

    def begin(self, reads: Sequence[Read], done: Callable[[Rows | None], None]) -> bool:
        """The view's rows, or `load` is to be asked."""
        return isinstance(self._view, ImmediateLoader) and self._view.begin(reads, done)

    async def load_after(self, reads: Sequence[Read], after: Sequence[Token]) -> Rows:
        """The view's rows, or none: the other cannot know whether it has the writes. Raises LoadError, but no ViewCannotAnswer."""
        try:
            return await load_after(self._view, reads, after)
        except ViewCannotAnswer as reason:
            raise AfterUnsupported(
                f"The view cannot answer ({reason.code}: {reason}), and the mode that answers in its place cannot know whether it has "
                "your write: try again later, or send no viewgate-after."
            ) from reason

    async def ready(self) -> None:
        """Return when one of the two is ready. Raises what the other raises."""
        try:
            await self._view.ready()
        except ViewCannotAnswer:
            await self._other.ready()
