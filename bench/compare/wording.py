"""Numbers as a person reads them: three digits that count, intervals beside them, "not measured" for what was not."""

from bench.compare.statistics import Estimate, Share
from bench.compare.tables import Percent, Value

NOT_MEASURED = "not measured"


def told(value: Value) -> str:
    """Without its interval."""
    if value is None or isinstance(value, str):
        return value or NOT_MEASURED
    if isinstance(value, Share):
        return percent(100 * value.value)
    if isinstance(value, Estimate):
        return number(value.value)
    if isinstance(value, Percent):
        return percent(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def interval(estimate: Estimate) -> str:
    """Empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    if isinstance(estimate, Share):
        return f"{percent(100 * estimate.low)} to {percent(100 * estimate.high)}"
    return f"{number(estimate.low)} to {number(estimate.high)}"


def whole(estimate: Estimate) -> str:
    """With its interval in brackets."""
    ends = interval(estimate)
    return f"{told(estimate)} ({f'95 %: {ends}' if ends else 'one repeat, no interval'})"


def number(value: float) -> str:
    if value in {float("inf"), 0.0}:
        return "0" if value == 0 else "no end"
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:.3g}"


def percent(value: float) -> str:
    """Never 100 where something is missing, nor 0 where something is there."""
    if 99.95 <= value < 100:
        return f"{min(value, 99.999):.3f} %"
    return f"{value:.3g} %"
