"""Rows of the result: printed as they come, kept for JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _pairs import Timing


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
        ours_spread: first and third quartile of our times.
        theirs_spread: likewise.
        ours_cold_ms: median of our calls that follow one of theirs.
        theirs_cold_ms: the other way round.
        parts: milliseconds of what such work includes, each done alone.
    """

    work: str
    against: str | None = None
    ours_ms: float | None = None
    theirs_ms: float | None = None
    ours_mb: float | None = None
    theirs_mb: float | None = None
    at_least: float | None = None
    ours_spread: tuple[float, float] | None = None
    theirs_spread: tuple[float, float] | None = None
    ours_cold_ms: float | None = None
    theirs_cold_ms: float | None = None
    parts: dict[str, float] | None = None

    @classmethod
    def timed(
        cls,
        work: str,
        against: str | None,
        ours: 'Timing',
        theirs: 'Timing | None' = None,
        **others: Any,
    ) -> 'Row':
        """A row of times; ``others`` are further attributes."""
        values: dict[str, Any] = {}
        for name, timing in (('ours', ours), ('theirs', theirs)):
            if timing:
                values |= {
                    f'{name}_ms': timing.ms,
                    f'{name}_spread': timing.spread,
                    f'{name}_cold_ms': timing.cold_ms,
                }
        return cls(work, against, **values, **others)

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
        warm = self.ours_cold_ms is None or self.theirs_cold_ms is None
        cold = None if warm else self.theirs_cold_ms / self.ours_cold_ms
        return {**asdict(self), 'ratio': ratio, 'cold_ratio': cold, 'reached': reached}


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
    (
        'work, against',
        'ours ms (quartiles)',
        'theirs ms (quartiles)',
        'ours MB',
        'theirs MB',
        'ratio',
        'at least',
    ),
    ('---', '--:', '--:', '--:', '--:', '--:', '--:'),
)


def _print(cells: Sequence[str]) -> None:
    widths = (82, 24, 24, 11, 11, 11, 11)
    cells = [cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]
    print(''.join(cells), flush=True)


def table_cells(row: dict) -> list[str]:
    """A row of a file as the cells of a table."""
    timed = [with_spread(row[f'{side}_ms'], row[f'{side}_spread']) for side in ('ours', 'theirs')]
    weighed = [significant(row[f'{side}_mb']) for side in ('ours', 'theirs')]
    return [row_name(row), *timed, *weighed, times(row['ratio']), times(row['at_least'])]


def row_name(row: dict) -> str:
    """The work, and whom it is compared with."""
    return row['work'] if row['against'] is None else f'{row["work"]}, {row["against"]}'


def with_spread(number: float | None, spread: Sequence[float] | None) -> str:
    """A median with its quartiles."""
    if spread is None:
        return significant(number)
    return f'{significant(number)} ({"-".join(significant(edge) for edge in spread)})'


def significant(number: float | None) -> str:
    """Three digits that count, never an exponent."""
    if number is None:
        return '-'
    decimals = 3 if number < 1 else 2 if number < 10 else 1 if number < 100 else 0
    return f'{number:,.{decimals}f}'


def times(ratio: float | None) -> str:
    """A ratio with its sign."""
    return '-' if ratio is None else f'{ratio:,.{2 if ratio < 10 else 0}f}x'
