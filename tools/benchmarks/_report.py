"""Rows of the result: printed as they come, kept for JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Row:
    """One piece of work against one opponent.

    Attributes:
        work: what is done, on what.
        against: who does it too; None where we are alone.
        ours_ms: median milliseconds of a call; None where not measured, as all below.
        theirs_ms: likewise.
        ours_mb: peak extra memory of a call, results included, 10^6 bytes.
        theirs_mb: likewise.
        at_least: the ratio to reach; None where none is set.
    """

    work: str
    against: str | None = None
    ours_ms: float | None = None
    theirs_ms: float | None = None
    ours_mb: float | None = None
    theirs_mb: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """Theirs over ours: of the times, or of the memory where no times are compared."""
        for ours, theirs in ((self.ours_ms, self.theirs_ms), (self.ours_mb, self.theirs_mb)):
            if ours and theirs is not None:
                return theirs / ours
        return None

    def as_json(self) -> dict:
        """The row as files hold it."""
        ratio = self.ratio
        reached = None if ratio is None or self.at_least is None else ratio >= self.at_least
        return {**asdict(self), 'ratio': ratio, 'reached': reached}


@dataclass
class Report:
    """All rows of a run, those left out, and what failed."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Keep a row and print it."""
        if not self.rows:
            _print(HEADINGS[0])
        self.rows.append(row)
        _print(table_cells(row.as_json()))

    def leave_out(self, work: str, against: str) -> None:
        """Say that a row has no opponent here."""
        sentence = f'left out: {work} against {against}, which is not installed'
        self.left_out.append(sentence)
        print(sentence, flush=True)


HEADINGS = (
    ('work, against', 'ours ms', 'theirs ms', 'ours MB', 'theirs MB', 'ratio', 'at least'),
    ('---', '--:', '--:', '--:', '--:', '--:', '--:'),
)


def _print(cells: Sequence[str]) -> None:
    print(cells[0].ljust(82) + ''.join(cell.rjust(11) for cell in cells[1:]), flush=True)


def table_cells(row: dict) -> list[str]:
    """A row of a file as the cells of a table."""
    name = row['work'] if row['against'] is None else f'{row["work"]}, {row["against"]}'
    numbers = [row[key] for key in ('ours_ms', 'theirs_ms', 'ours_mb', 'theirs_mb')]
    return [name, *(significant(number) for number in numbers), times(row['ratio']), times(row['at_least'])]


def significant(number: float | None) -> str:
    """Three digits that count, never an exponent."""
    if number is None:
        return '-'
    decimals = 3 if number < 1 else 2 if number < 10 else 1 if number < 100 else 0
    return f'{number:,.{decimals}f}'


def times(ratio: float | None) -> str:
    """A ratio with its sign."""
    return '-' if ratio is None else f'{ratio:,.{2 if ratio < 10 else 0}f}x'
