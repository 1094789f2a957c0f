"""How the grid route's time grows with the number of priors N and of gts T.

It should be flat in N and linear in T. The results `assigned` and `ious` are [B, N] each, so the assignment
has to write 12 N bytes whatever the route does. Filling two such tensors with zeros is timed beside it, and
so is `center_topk`, which is the search alone and has no result of size N. All calls are warm.
"""

from _calls import our_call
from _pairs import time_alone
from _scenes import Priors, pack, pyramid_priors, random_boxes
from _settings import TOPK, Settings
from torch import Tensor

from atss_ext import ops

SIDES = (400, 800, 1600, 2400, 3200)
GTS = 100
COUNTS = (10, 30, 100, 300, 1000, 3000, 5000)
QUICK_SIDES, QUICK_COUNTS = (128, 256), (10, 30)


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
