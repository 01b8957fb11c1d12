"""The tables of a page as a reader has them: rows by name, with the text of each cell and the whole numbers beside it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Cell:
    """value, low, high: None where the cell has words."""

    text: str = ""
    small: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass
class Tables(HTMLParser):
    """columns and rows by the name of the table; the first column is the row's name."""

    columns: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, dict[str, list[Cell]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._table = self._row = self._within = ""

    def of(self, table: str, row: str) -> dict[str, Cell]:
        """By the heads of the columns."""
        return dict(zip(self.columns[table][1:], self.rows[table][row], strict=True))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self._table = (given["id"] or "").removeprefix("table-")
            self.columns[self._table], self.rows[self._table] = [], {}
        elif self._table and tag == "th" and given.get("scope") == "col":
            self.columns[self._table].append("")
            self._within = "head"
        elif self._table and tag == "tr" and given.get("data-row") is not None:
            self._row = given["data-row"] or ""
            self.rows[self._table][self._row] = []
        elif self._table and tag == "td" and self._row:
            told = [given.get(f"data-{name}") for name in ("value", "low", "high")]
            self.rows[self._table][self._row].append(Cell("", "", *(None if one is None else float(one) for one in told)))
            self._within = "cell"
        elif tag == "small" and self._within == "cell":
            self._within = "small"

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""
        elif tag == "tr":
            self._row = ""
        if tag in {"th", "td", "small"}:
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "head":
            self.columns[self._table][-1] += data
        elif self._within == "cell":
            self.rows[self._table][self._row][-1].text += data
        elif self._within == "small":
            self.rows[self._table][self._row][-1].small += data
