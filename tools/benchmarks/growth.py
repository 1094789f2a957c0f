"""How the grid route's time grows: flat in the number of priors N, linear in the number of gts T.

The results `assigned` and `ious` are [B, N] each, so the assignment has to write 12 N bytes whatever the
route does. That floor is timed beside it (two tensors filled with zeros), and so is `center_topk`, which
is the search alone and has no result of size N.
"""

from pathlib import Path

from _pairs import time_alone
from _scenes import Priors, pack, pyramid_priors, random_boxes
from _settings import TOPK, Settings
from assignment import our_call
from torch import Tensor

from atss_ext import ops

SIDES = (400, 800, 1600, 2400, 3200)
GTS = 100
COUNTS = (10, 30, 100, 300, 1000, 3000, 5000)
QUICK_SIDES, QUICK_COUNTS = (128, 256), (10, 30)
HEADINGS = ('priors N', 'gts T', 'atss_assign ms', 'results alone ms', 'center_topk ms')


def measure(settings: Settings) -> dict[str, list[dict]]:
    """Points of both curves: ``by_priors`` and ``by_gts``."""
    sides = QUICK_SIDES if settings.quick else SIDES
    counts = QUICK_COUNTS if settings.quick else COUNTS
    # Gts of the smallest image in all of them: only N changes.
    few = random_boxes(GTS, (sides[0], sides[0]), 0, settings.device)
    priors = pyramid_priors(settings.image, settings.device)
    return {
        'by_priors': [_point(settings, pyramid_priors((side, side), settings.device), few) for side in sides],
        'by_gts': [
            _point(settings, priors, random_boxes(count, settings.image, 0, settings.device))
            for count in counts
        ],
    }


def _point(settings: Settings, priors: Priors, gts: Tensor) -> dict:
    boxes, offsets = pack([gts])
    count = len(priors.boxes)

    def results() -> tuple[Tensor, Tensor]:
        return offsets.new_zeros(1, count), boxes.new_zeros(1, count)

    def search() -> ops.Candidates:
        return ops.center_topk(priors.boxes, priors.sizes, boxes, offsets, TOPK, grid=priors.grid)

    calls = {'assign_ms': our_call(priors, [gts], 'grid'), 'results_ms': results, 'topk_ms': search}
    seconds = settings.seconds / 12
    times = {name: time_alone(call, settings.device, seconds) for name, call in calls.items()}
    return {'priors': count, 'gts': len(gts), **times}


def cells(point: dict) -> list[str]:
    """A point as the cells of a table."""
    times = [f'{point[key]:.3f}' for key in ('assign_ms', 'results_ms', 'topk_ms')]
    return [f'{point["priors"]:,}', f'{point["gts"]:,}', *times]


def show(growth: dict[str, list[dict]]) -> None:
    """Print both tables."""
    for points in growth.values():
        print()
        for row in (HEADINGS, *map(cells, points)):
            print(''.join(cell.rjust(18) for cell in row))


def plot(growth: dict[str, list[dict]], path: Path) -> None:
    """Draw both curves into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, points, key in ((left, growth['by_priors'], 'priors'), (right, growth['by_gts'], 'gts')):
        x = [point[key] for point in points]
        for name, label in (
            ('assign_ms', 'atss_assign'),
            ('topk_ms', 'center_topk'),
            ('results_ms', 'results alone'),
        ):
            axes.plot(x, [point[name] for point in points], marker='o', label=label)
        axes.set(xscale='log', yscale='log', ylabel='ms')
        axes.grid(which='both', alpha=0.2)
    left.set(xlabel='priors N', title=f'{left_gts(growth)} gts')
    right.set(xlabel='gts T', title=f'{growth["by_gts"][0]["priors"]:,} priors')
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def left_gts(growth: dict[str, list[dict]]) -> int:
    """Gts of the curve over priors."""
    return growth['by_priors'][0]['gts']
