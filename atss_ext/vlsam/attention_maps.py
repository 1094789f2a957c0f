"""From the attention of a sequence's tokens to maps over the image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from atss_ext.vlsam.protocols import TokenGrid, VlsamError

_WHICH = ('all', 'global', 'tiles')
_WHOLE = (0.0, 0.0, 1.0, 1.0)
# Boxes come from divisions of pixels; far less than any token.
_SLACK = 1e-6
# A narrow window on a long image would ask for more cells than a map is good for.
_MOST_CELLS = 512


@torch.no_grad()
def grid_map(
    row: Tensor,
    grids: Sequence[TokenGrid],
    which: str = 'all',
    size: tuple[int, int] | None = None,
) -> Tensor:
    """The attention of image tokens as maps over the whole image.

    One grid that covers just the image is gathered as it stands. Otherwise a token spreads its weight evenly
    over the area it covers, what lies outside of the image is cut off, and all grids are summed up on one
    canvas, so that the sum of a map is the weight that fell into the image.

    Args:
        row: [O, N], of :func:`~atss_ext.vlsam.attention.attention_rows`.
        grids: the image's tokens.
        which: 'all' grids; 'global', the one that shows the whole image (the coarsest where several do);
            'tiles', the others. With a single grid there is nothing to choose.
        size: (R, C) of the map; None takes the finest resolution of the grids used, 512 a side at most.

    Returns:
        float32 [O, R, C].

    Raises:
        VlsamError: no grid that holds a token, a grid without an area, a token outside of the sequence, an
            unknown ``which`` or one that no grid answers to, a ``size`` that is none.
    """
    if row.dim() != 2:
        raise VlsamError(f'row must be [O, N], a row an object, but is {list(row.shape)}.')
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise VlsamError(f'size must be two positive numbers (R, C), but is {size}.')
    for grid in grids:
        _check(grid, row.size(1))
    # Of tiles that see little but padding nothing may be left.
    used = _chosen([grid for grid in grids if grid.positions.numel()], which)
    if len(used) == 1 and _same(used[0].box, _WHOLE) and size in (None, tuple(used[0].positions.shape)):
        return _gather(row, used[0])
    height, width = size or _finest(used)
    total = torch.zeros(len(row), height, width, device=row.device)
    # Autocast would round the products to half precision.
    with torch.autocast(row.device.type, enabled=False):
        for grid in used:
            x1, y1, x2, y2 = grid.box
            down = _shares(height, grid.positions.size(0), y1, y2).to(total)
            across = _shares(width, grid.positions.size(1), x1, x2).to(total)
            total += down @ _gather(row, grid) @ across.mT
    return total


def _check(grid: TokenGrid, tokens: int) -> None:
    positions, (x1, y1, x2, y2) = grid
    if positions.dim() != 2:
        raise VlsamError(f'A grid of tokens must be [R, C] but is {list(positions.shape)}.')
    if not (x1 < x2 and y1 < y2):
        raise VlsamError(f'A grid covers no area: its box is {grid.box}; it must have x1 < x2 and y1 < y2.')
    if not positions.numel():
        return
    first, last = (int(edge) for edge in positions.aminmax())
    if first < -1 or last >= tokens:
        wrong = first if first < -1 else last
        raise VlsamError(
            f'A grid names token {wrong} but the sequence has {tokens} (0 to {tokens - 1}, -1 for none): '
            'the image tokens do not match the sequence.'
        )


def _chosen(grids: Sequence[TokenGrid], which: str) -> Sequence[TokenGrid]:
    if which not in _WHICH:
        raise VlsamError(f"which must be 'all', 'global' or 'tiles', but is {which!r}.")
    if not grids:
        raise VlsamError('There is no grid that holds an image token; a map needs at least one.')
    if which == 'all' or len(grids) == 1:
        return grids
    whole = [number for number, grid in enumerate(grids) if _shows_all(grid.box)]
    if not whole:
        raise VlsamError(f"None of the {len(grids)} grids shows the whole image; use which='all'.")
    coarsest = min(whole, key=lambda number: grids[number].positions.numel())
    if which == 'global':
        return [grids[coarsest]]
    return [grid for number, grid in enumerate(grids) if number != coarsest]


def _shows_all(box: Sequence[float]) -> bool:
    return max(box[0], box[1]) <= _SLACK and min(box[2], box[3]) >= 1 - _SLACK


def _same(box: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(one - two) <= _SLACK for one, two in zip(box, other, strict=True))


def _gather(row: Tensor, grid: TokenGrid) -> Tensor:
    """float32 [O, R, C], zero where the grid has no token."""
    positions = grid.positions.to(row.device)
    return row[:, positions.clamp(min=0)].float().masked_fill(positions < 0, 0)


def _finest(grids: Sequence[TokenGrid]) -> tuple[int, int]:
    """Rows and columns of the whole image at the resolution of the finest grid."""
    rows = [grid.positions.size(0) / (grid.box[3] - grid.box[1]) for grid in grids]
    columns = [grid.positions.size(1) / (grid.box[2] - grid.box[0]) for grid in grids]
    height, width = (min(max(round(max(sides)), 1), _MOST_CELLS) for sides in (rows, columns))
    return height, width


def _shares(cells: int, tokens: int, start: float, stop: float) -> Tensor:
    """Share of each of a grid's rows (or columns) that lies in each of the canvas's, float64 [cells, tokens].

    Args:
        cells: of the canvas, which covers 0..1.
        tokens: of the grid.
        start: where the grid begins, as a fraction of the image.
        stop: where it ends.
    """
    edges = torch.arange(cells + 1, dtype=torch.float64) / cells
    token_edges = start + (stop - start) * torch.arange(tokens + 1, dtype=torch.float64) / tokens
    upper = torch.minimum(edges[1:, None], token_edges[1:])
    lower = torch.maximum(edges[:-1, None], token_edges[:-1])
    return (upper - lower).clamp(min=0) * (tokens / (stop - start))
