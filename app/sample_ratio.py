"""Whether subjects came to the modes in the ratio of the weights: Pearson's chi-squared test. Counts nothing itself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schema.loader import Mode

# the ratio is taken for wrong below it
ALARM = 0.001
# with fewer expected the test says nothing
FEWEST = 5.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """p: how likely it is that chance alone makes the ratio as far from the weights as this. None: too few to say."""

    p: float | None

    @property
    def wrong(self) -> bool:
        return self.p is not None and self.p < ALARM


def ratio(subjects: Mapping[Mode, int], weights: Mapping[Mode, int]) -> Ratio:
    """subjects: distinct ones by the mode that they were given. Modes without weight are left out."""
    modes = [mode for mode, weight in weights.items() if weight]
    observed, total = [subjects.get(mode, 0) for mode in modes], sum(weights[mode] for mode in modes)
    expected = [sum(observed) * weights[mode] / total for mode in modes]
    if len(modes) < 2 or min(expected) < FEWEST:
        return Ratio(None)
    return Ratio(p_value(chi_squared(observed, expected), len(modes) - 1))


def chi_squared(observed: Sequence[float], expected: Sequence[float]) -> float:
    return sum((one - other) ** 2 / other for one, other in zip(observed, expected, strict=True))


def p_value(statistic: float, freedom: int) -> float:
    """That chi-squared is at least so large. freedom: degrees of it, 1 or more."""
    x = statistic / 2
    # the regularised upper gamma function, by its recurrence from where it is elementary
    a, found = (0.5, math.erfc(math.sqrt(x))) if freedom % 2 else (1.0, math.exp(-x))
    while a < freedom / 2:
        found += x**a * math.exp(-x) / math.gamma(a + 1)
        a += 1
    return found
