"""The metrics of `viewgate audit --watch`, in a registry of their own. docs/metrics.md has a line for each."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge


class AuditMetrics:
    """At /metrics of the port that the command was told."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rows = Counter("viewgate_audit_rows", "Rows held against what they must be.", registry=self.registry)
        self._nines = Gauge("viewgate_audit_agreement_nines", "How many nines of the rows of a round agree.", registry=self.registry)
        self._oldest = Gauge("viewgate_audit_oldest_unverified_seconds", "How long no row was unverified longer.", registry=self.registry)
        self._mismatches = Counter("viewgate_audit_mismatches", "Fields that differed, by field.", ["field"], registry=self.registry)
        self._repairs = Counter("viewgate_audit_repairs", "Fields that were mended.", registry=self.registry)

    def verified(self, rows: int) -> None:
        self._rows.inc(rows)

    def differed(self, field: str) -> None:
        self._mismatches.labels(field).inc()

    def mended(self, fields: int) -> None:
        self._repairs.inc(fields)

    def stand(self, agreement: float, oldest_seconds: float) -> None:
        """agreement: see `nines`."""
        self._nines.set(agreement)
        self._oldest.set(oldest_seconds)


def nines(rows: int, wrong: int) -> float:
    """3.0 when one of 1,000 rows is wrong. Where none is, as if the next one were: so many rows can prove no more."""
    return -math.log10(wrong / rows) if wrong else math.log10(rows + 1)
