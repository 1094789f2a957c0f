"""Sample inputs of every op, and how results are compared. Needs torch alone: a bare GPU machine runs it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from atss_ext.ops import find_grid
from atss_ext.ops.grid import GridLevel, flatten

MODES = ('iou', 'iof', 'giou', 'diou', 'ciou')
# Feature maps of an odd-sized image, strides 8 to 128.
SHAPES = ((13, 19), (7, 10), (4, 5), (2, 3), (1, 2))
EXTENT = (152, 104)  # width and height they cover, pixels


def make_priors(
    shapes: Sequence[tuple[int, int]] = SHAPES,
    ratios: Sequence[float] = (1.0,),
    scales: int = 1,
    center_offset: float = 0.0,
) -> Tensor:
    """Anchors [N, 4] of 8 x stride, as RetinaNet's and ATSS's configs make them; strides double from 8."""
    levels = []
    for level, (height, width) in enumerate(shapes):
        stride = 8 * 2**level
        sides = [8 * stride * 2 ** (i / scales) for i in range(scales)]
        sizes = torch.tensor([[s / math.sqrt(r), s * math.sqrt(r)] for r in ratios for s in sides])
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
        centers = (torch.stack([x, y], -1).view(-1, 1, 2) + center_offset) * float(stride)
        levels.append(torch.cat([centers - sizes / 2, centers + sizes / 2], -1).view(-1, 4))
    return torch.cat(levels)


def level_sizes(shapes: Sequence[tuple[int, int]] = SHAPES, anchors: int = 1) -> list[int]:
    return [height * width * anchors for height, width in shapes]


def random_boxes(count: int, seed: int = 0, extent: tuple[int, int] = EXTENT) -> Tensor:
    """Boxes [count, 4] of a pixel to an image's size; some reach out of it."""
    unit = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    centers, sizes = unit[:, :2] * torch.tensor(extent), torch.exp(unit[:, 2:] * 5)
    return torch.cat([centers - sizes / 2, centers + sizes / 2], 1)


def offsets_of(counts: Sequence[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


@dataclass(frozen=True)
class Case:
    """A batch to assign."""

    priors: Tensor
    sizes: list[int]
    boxes: Tensor
    offsets: Tensor
    k: int = 9
    valid: Tensor | None = None
    ignore_boxes: Tensor | None = None
    ignore_offsets: Tensor | None = None
    ignore_iof_thr: float = 0.5
    ensure_positive: bool = False
    grid: tuple[GridLevel, ...] | None = None

    @property
    def num_images(self) -> int:
        return self.offsets.numel() - 1

    def arguments(self, grid: bool = True) -> dict:
        """Of :func:`atss_ext.ops.atss_assign`."""
        return {
            'priors': self.priors,
            'level_sizes': self.sizes,
            'gt_boxes': self.boxes,
            'offsets': self.offsets,
            'k': self.k,
            'valid': self.valid,
            'ignore_boxes': self.ignore_boxes,
            'ignore_offsets': self.ignore_offsets,
            'ignore_iof_thr': self.ignore_iof_thr,
            'ensure_positive': self.ensure_positive,
            **({'grid': self.grid} if grid else {}),
        }

    def topk_arguments(self, grid: bool = True) -> dict:
        """Of :func:`atss_ext.ops.center_topk`."""
        names = ('priors', 'level_sizes', 'gt_boxes', 'offsets', 'k', 'valid', *(['grid'] if grid else []))
        return {name: self.arguments(grid)[name] for name in names}

    def to(self, dtype: torch.dtype) -> 'Case':
        return replace(self, priors=self.priors.to(dtype), boxes=self.boxes.to(dtype))


def random_case(
    counts: Sequence[int] = (5, 0, 12), seed: int = 0, regions: Sequence[int] | None = None, **changes
) -> Case:
    """A batch on :data:`SHAPES` with the grid known."""
    priors, sizes = make_priors(), level_sizes()
    case = Case(
        priors,
        sizes,
        random_boxes(sum(counts), seed),
        offsets_of(counts),
        grid=find_grid(priors, SHAPES, [1] * len(SHAPES)),
    )
    if regions is not None:
        boxes = random_boxes(sum(regions), seed + 1)
        case = replace(case, ignore_boxes=boxes, ignore_offsets=offsets_of(regions))
    return replace(case, **changes)


def rectangle_mask(priors: Tensor, extents: Sequence[tuple[int, int]]) -> Tensor:
    """[B, N] bool: priors whose centre lies in an image of this (width, height)."""
    centers = (priors[:, :2] + priors[:, 2:]) / 2
    return torch.stack([(centers < torch.tensor(extent)).all(1) for extent in extents])


def random_mask(images: int, priors: int, share: float, seed: int = 0) -> Tensor:
    return torch.rand(images, priors, generator=torch.Generator().manual_seed(seed)) < share


def cases_in(dtype: torch.dtype) -> dict[str, Case]:
    """:func:`assign_cases` in another type; what is infinite in it is left out, as assigners refuse it."""
    cases = {name: case.to(dtype) for name, case in assign_cases().items()}
    return {name: case for name, case in cases.items() if case.boxes.isfinite().all()}


def many_gts(count: int = 5000) -> Case:
    return random_case((count // 2, 0, count - count // 2), seed=3)


def tied_boxes() -> Tensor:
    """gts whose centres are as far from two or four cells of every level, and identical gts."""
    centers = torch.tensor([[4.0, 4], [36, 36], [68, 4], [4, 68], [64, 64], [64, 64], [100, 52]])
    sizes = torch.tensor([[16.0, 16], [40, 40], [8, 24], [24, 8], [64, 64], [64, 64], [100, 30]])
    return torch.cat([centers - sizes / 2, centers + sizes / 2], 1)


def zero_area_boxes() -> Tensor:
    points = torch.tensor([[8.0, 8], [20, 20], [0, 0], [64, 64]])
    lines = torch.tensor([[8.0, 0, 8, 50], [0, 16, 90, 16]])
    return torch.cat([torch.cat([points, points], 1), lines])


def huge_boxes(size: float) -> Tensor:
    return torch.tensor(
        [
            [-size, -size, size, size],
            [size, size, size * 1.5, size * 1.5],
            [0, 0, size, 10],
            [-size, 5, -size / 2, 6],
            [10, 10, 60, 60],
        ]
    )


def single_images(boxes: Tensor, **changes) -> Case:
    """All boxes in one image."""
    return replace(random_case((0,)), boxes=boxes, offsets=offsets_of([len(boxes)]), **changes)


def flat_case(sizes: list[int], counts: Sequence[int], k: int) -> Case:
    """Priors that stand nowhere in particular, and levels of these sizes."""
    return Case(random_boxes(sum(sizes), 5), sizes, random_boxes(sum(counts), 6), offsets_of(counts), k)


def masked_cases() -> Iterator[tuple[str, Case]]:
    base = random_case((6, 0, 9, 4), seed=2)
    images, count = base.num_images, len(base.priors)
    rectangles = rectangle_mask(base.priors, [(152, 104), (30, 104), (152, 9), (1, 1)])
    yield 'rectangles', replace(base, valid=rectangles)
    yield 'random mask', replace(base, valid=random_mask(images, count, 0.5))
    yield 'few valid', replace(base, valid=random_mask(images, count, 0.02))
    yield 'none valid', replace(base, valid=torch.zeros(images, count, dtype=torch.bool))
    everything = torch.tensor([[-1000.0, -1000, 2000, 2000]] * images)
    all_ignored = replace(base, ignore_boxes=everything, ignore_offsets=offsets_of([1] * images))
    yield 'everything ignored', all_ignored
    partly = random_case((6, 0, 9, 4), 2, (2, 3, 0, 5), ignore_iof_thr=0.2)
    yield 'partly ignored', partly
    yield 'ignored and masked', replace(partly, valid=rectangles)
    yield 'ignored, masked, ensured', replace(partly, valid=rectangles, ensure_positive=True)
    far = replace(partly, boxes=partly.boxes + 3e8)
    yield 'gts farther than the ignored distance', far
    yield 'no regions in the end', random_case((6, 0, 9, 4), 2, (0, 0, 0, 0))


def assign_cases() -> dict[str, Case]:
    """Name -> batch: random and adversarial."""
    crowd = random_boxes(40, 8, (30, 30))
    return {
        'random': random_case(),
        'ties': single_images(tied_boxes()),
        'ties, ensured': single_images(tied_boxes(), ensure_positive=True),
        'aligned': single_images((random_boxes(30, 4) / 8).round() * 8),
        'zero area': single_images(zero_area_boxes()),
        'zero area, ensured': single_images(zero_area_boxes(), ensure_positive=True),
        'crowded': single_images(crowd),
        'crowded, ensured': single_images(crowd, ensure_positive=True),
        'identical, ensured': single_images(
            torch.tensor([[20.0, 20, 60, 60]] * 50), ensure_positive=True, k=1
        ),
        'huge 1e6': single_images(huge_boxes(1e6)),
        'huge 1e20': single_images(huge_boxes(1e20)),
        'huge 1e20, ensured': single_images(huge_boxes(1e20), ensure_positive=True),
        'empty first': random_case((0, 4, 6)),
        'empty middle': random_case((4, 0, 0, 6)),
        'empty last': random_case((4, 6, 0)),
        'all empty': random_case((0, 0, 0)),
        'no priors': Case(torch.zeros(0, 4), [0, 0], random_boxes(3), offsets_of([3]), grid=None),
        'one prior': flat_case([1], (3,), 9),
        'one prior a level': flat_case([1, 1, 1], (3, 2), 2),
        'empty level': flat_case([40, 0, 7], (4, 4), 9),
        'k over every level': random_case(k=1000),
        'k of one': random_case(k=1),
        'no grid': flat_case([700, 129, 64, 63, 1], (9, 0, 14), 9),
        'no grid, identical priors': replace(
            flat_case([300], (6,), 9), priors=torch.tensor([[10.0, 10, 30, 30]]).repeat(300, 1)
        ),
        'many gts': many_gts(),
        **dict(masked_cases()),
    }


class OpSample(NamedTuple):
    """Arguments of a native op as its schema has them."""

    op: str
    name: str
    args: tuple

    def __str__(self) -> str:
        return f'{self.op}-{self.name}'.replace(' ', '_')

    def to(self, device: str) -> tuple:
        return tuple(arg.to(device) if isinstance(arg, Tensor) else arg for arg in self.args)

    def __call__(self, device: str = 'cpu') -> tuple[Tensor, ...]:
        result = getattr(torch.ops.atss_ext, self.op)(*self.to(device))
        return result if isinstance(result, tuple | list) else (result,)


def assign_args(case: Case, grid: bool) -> tuple:
    shapes, geometry = flatten(case.grid if grid else None)
    arguments = list(case.arguments(grid=False).values())
    return (*arguments, shapes, geometry)


def topk_args(case: Case, grid: bool) -> tuple:
    shapes, geometry = flatten(case.grid if grid else None)
    ignored = None
    if case.ignore_boxes is not None:
        ignored = random_mask(case.num_images, len(case.priors), 0.3, seed=9)
    return (case.priors, case.sizes, case.boxes, case.offsets, case.k, case.valid, ignored, shapes, geometry)


def target_args(case: Case, pos_weight: float) -> tuple:
    """The assignment itself is random: who holds what does not matter to the gathering."""
    counts = case.offsets.diff()
    drawn = torch.rand(case.num_images, len(case.priors), generator=torch.Generator().manual_seed(4))
    assigned = (drawn * (counts[:, None] + 2)).long() - 1
    labels = torch.arange(len(case.boxes)) % 7
    return (case.priors, assigned, case.boxes, labels, case.offsets, 7, pos_weight)


def overlap_pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> as many boxes [N, 4] as boxes [N, 4]."""
    ordinary = random_boxes(200, 1), random_boxes(200, 2)
    zero = zero_area_boxes()
    return {
        'ordinary': ordinary,
        'identical': (ordinary[0], ordinary[0].clone()),
        'zero area': (zero, zero.flip(0).clone()),
        'apart': (ordinary[0], ordinary[1] + 1000),
        'empty': (torch.zeros(0, 4), torch.zeros(0, 4)),
        'float64': (ordinary[0].double(), ordinary[1].double()),
        'float16': (ordinary[0].half(), ordinary[1].half()),
        'bfloat16': (ordinary[0].bfloat16(), ordinary[1].bfloat16()),
        'mixed': (ordinary[0].half(), ordinary[1].double()),
    }


def overlap_samples() -> Iterator[OpSample]:
    for mode in MODES:
        for name, (a, b) in overlap_pairs().items():
            yield OpSample('aligned_box_iou', f'{mode} {name}', (a, b, mode))
            grad = torch.linspace(-1, 1, len(a)).to(torch.promote_types(a.dtype, b.dtype))
            yield OpSample('aligned_box_iou_backward', f'{mode} {name}', (grad, a, b, mode))
            yield OpSample('batched_box_iou', f'{mode} {name}', (a[:50], b[:33], None, mode))
        a, b = random_boxes(60, 1).view(3, 20, 4), random_boxes(21, 2).view(3, 7, 4)
        packed, offsets = random_boxes(19, 4), offsets_of([8, 0, 11])
        yield OpSample('aligned_box_iou', f'{mode} more dimensions', (a, a.roll(1, 0), mode))
        yield OpSample('batched_box_iou', f'{mode} images', (a, b, None, mode))
        yield OpSample('batched_box_iou', f'{mode} packed, shared rows', (a[0], packed, offsets, mode))
        yield OpSample('batched_box_iou', f'{mode} packed', (a, packed, offsets, mode))
        yield OpSample('batched_box_iou', f'{mode} packed, none', (a, packed[:0], offsets * 0, mode))


def case_samples() -> Iterator[OpSample]:
    for name, case in assign_cases().items():
        for grid in (False, True) if case.grid else (False,):
            route = f'{name}, grid' if grid else name
            yield OpSample('atss_assign', route, assign_args(case, grid))
            yield OpSample('center_topk', route, topk_args(case, grid))
    for name, case in {'random': random_case(), 'no gts': random_case((0, 0))}.items():
        for dtype in (torch.float32, torch.float64, torch.float16):
            typed = f'{name} {str(dtype).removeprefix("torch.")}'
            yield OpSample('atss_assign', typed, assign_args(case.to(dtype), grid=False))
            yield OpSample('center_topk', typed, topk_args(case.to(dtype), grid=False))
            yield OpSample('gather_targets', typed, target_args(case.to(dtype), -1))
    yield OpSample('gather_targets', 'weighted', target_args(random_case(), 2.5))


def attention_inputs(
    heads: int = 4, groups: int = 2, tokens: int = 53, depth: int = 8, objects: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Rows, query, key and scale; scores are some units large, so that heads differ in certainty."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(objects, tokens, generator=generator)
    query = torch.randn(heads, tokens, depth, generator=generator) * 2
    key = torch.randn(groups, tokens, depth, generator=generator)
    return rows, query, key, depth**-0.5


def attention_samples() -> Iterator[OpSample]:
    sizes = {
        'random': {},
        'random, own keys': {'groups': 4},
        'random, one head': {'heads': 1, 'groups': 1},
        'random, one token': {'tokens': 1},
        'random, several blocks': {'tokens': 211, 'depth': 5, 'objects': 5},
        'random, no objects': {'objects': 0},
        'no tokens': {'tokens': 0},
    }
    for name, size in sizes.items():
        yield OpSample('attention_products', name, attention_inputs(**size))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        typed = (arg.to(dtype) if isinstance(arg, Tensor) else arg for arg in attention_inputs())
        yield OpSample('attention_products', f'random {str(dtype).removeprefix("torch.")}', tuple(typed))


def op_samples() -> list[OpSample]:
    """Samples of all ops."""
    from predicted_samples import all_prediction_samples  # it makes its batches of what is here

    return [*overlap_samples(), *case_samples(), *attention_samples(), *all_prediction_samples()]


def cuda_samples() -> list[OpSample]:
    """Samples of the ops that have kernels for CUDA."""
    return [*overlap_samples(), *case_samples()]


def same_values(a: Tensor, b: Tensor) -> bool:
    """``torch.equal`` to which NaN equals NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(0), b.nan_to_num(0))


def assert_identical(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """The same bits in all results."""
    assert len(ours) == len(theirs)
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert same_values(a, b), f'result {index} differs in {int((a != b).sum())} places'


def within_one_ulp(a: Tensor, b: Tensor) -> Tensor:
    """Whether values are neighbouring floats or equal; for results that end in a square root.

    PyTorch's vectorised root is not correctly rounded (of float32 values one in five is its neighbour on an
    EPYC), ours is.
    """
    up, down = b.new_tensor(math.inf), b.new_tensor(-math.inf)
    near = (a == b) | (a == torch.nextafter(b, up)) | (a == torch.nextafter(b, down))
    return near | (a.isnan() & b.isnan())


def same_thresholds(a: Tensor, b: Tensor) -> Tensor:
    """Whether thresholds agree up to the order of summation.

    Both sides sum in float64, PyTorch in an order of its own, and round once. In float32 a sum beside the
    middle of two floats may so be rounded either way; in float64 the sums of some dozen to some hundred IoUs
    themselves differ, by less than an ulp an addition in the worst case.
    """
    if a.dtype == torch.float32:
        return within_one_ulp(a, b)
    near = (a == b) | ((a - b).abs() <= 64 * torch.finfo(b.dtype).eps * b.abs())
    return near | (a.isnan() & b.isnan())


def assert_identical_but_for(
    place: int, same: Callable[[Tensor, Tensor], Tensor], ours: Sequence[Tensor], theirs: Sequence[Tensor]
) -> None:
    """The same bits, except for result number ``place``, which ``same`` compares."""
    ours, theirs = list(ours), list(theirs)
    a, b = ours.pop(place), theirs.pop(place)
    assert_identical(ours, theirs)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    assert same(a, b).all(), f'result {place} differs: {a[~same(a, b)]}, {b[~same(a, b)]}'


def assert_same_candidates(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Indices exactly; distances are roots."""
    assert_identical_but_for(1, within_one_ulp, ours, theirs)


def assert_same_assignment(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """Who holds what, IoUs and counts exactly; thresholds are sums."""
    assert_identical_but_for(2, same_thresholds, ours, theirs)


def assert_same_targets(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    """All exactly; centerness is a root."""
    assert_identical_but_for(4, within_one_ulp, ours, theirs)
