"""Which user is next, drawn by a seed: Zipf's law over users in a random order, and perhaps one who is asked for above all."""

import random
from bisect import bisect_left
from itertools import accumulate


class Population:
    """users: their ids are 1 to this. skew: 0: each alike. celebrity: the share of draws that are of one user."""

    def __init__(self, users: int, skew: float, celebrity: float, seed: int) -> None:
        self._dice = random.Random(seed)
        # who is popular is the same for readers and writers, and has nothing to do with ids
        self._order = list(range(1, users + 1))
        random.Random(users).shuffle(self._order)
        self._celebrity = celebrity
        weights = [1 / rank**skew for rank in range(1, users + 1)]
        self._sums = list(accumulate(weights))

    def draw(self) -> int:
        if self._celebrity and self._dice.random() < self._celebrity:
            return self._order[0]
        return self._order[bisect_left(self._sums, self._dice.random() * self._sums[-1])]
