"""How much each client may ask for in a while."""

from collections import OrderedDict
from collections.abc import Callable

# of the clients that asked last; who is forgotten has all of its credit again
CLIENTS = 100_000
BURST_SECONDS = 5.0


class Rates:
    """Credit that grows by so much a second, up to BURST_SECONDS' worth. It is taken after the fact, and may be overdrawn once."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second, self._clock = per_second, clock
        # by client: its credit, and when it was that
        self._credit: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str) -> float:
        """How long until it may ask again; 0: it may now."""
        return max(0.0, -self._now(client) / self._per_second)

    def take(self, client: str, cost: float) -> None:
        self._credit[client] = self._now(client) - cost, self._clock()
        self._credit.move_to_end(client)
        if len(self._credit) > CLIENTS:
            self._credit.popitem(last=False)

    def _now(self, client: str) -> float:
        most = self._per_second * BURST_SECONDS
        if client not in self._credit:
            return most
        credit, at = self._credit[client]
        return min(most, credit + (self._clock() - at) * self._per_second)
