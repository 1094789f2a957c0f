"""The embedded world: scenes of coloured shapes with names, boxes and masks, made from a seed.

``draw_scene(spec, seed, index)`` is the whole of it: scene ``index`` depends on ``spec``, ``seed``
and ``index`` and on nothing else. :mod:`atss_ext.datasets.shapes_coco` writes scenes as a COCO
dataset.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets import shapes_drawing as drawing

_PLACING_TRIES = 12
_SIZE_POWER = 0.7


@dataclasses.dataclass(frozen=True)
class ShapesSpec:
    """What a world of shapes contains.

    Its categories are every pattern x colour x shape, in that order, the last varying fastest; their
    ids count from 1.

    Args:
        width: of every image, pixels.
        height: of every image, pixels.
        colours: names from :data:`shapes_drawing.PALETTE`.
        shapes: names from :data:`shapes_drawing.OUTLINES`.
        patterns: names from :data:`shapes_drawing.PATTERNS`.
        min_objects: fewest objects of a scene that is not empty.
        max_objects: most objects of a scene. A scene may hold fewer than were drawn where they
            find no place.
        min_size: least longest side of an object's (visible) box, pixels.
        max_size: greatest longest side of an object's box, pixels.
        empty_fraction: share of scenes without any object.
        clutter: most things a scene that belong to no category (blobs of muted colours).
        min_visible: least visible part of an object. One that would be hidden or cut off further is
            left out of the picture, not only of its annotations: no object goes unnamed.
        rotation: objects are turned by up to this many degrees either way; 180 is any angle.
        skew: exponent of the categories' frequency, rank ** -skew; 0 makes all equally frequent.
        realism: strength of texture, shading, blur and noise: 0 draws flat colours.

    Raises:
        ValueError: an argument is out of range or a name is unknown.
    """

    width: int = 256
    height: int = 192
    colours: tuple[str, ...] = ('red', 'green', 'blue', 'yellow')
    shapes: tuple[str, ...] = ('circle', 'triangle')
    patterns: tuple[str, ...] = ('plain',)
    min_objects: int = 1
    max_objects: int = 8
    min_size: int = 8
    max_size: int = 150
    empty_fraction: float = 0.04
    clutter: int = 5
    min_visible: float = 0.75
    rotation: float = 15.0
    skew: float = 0.0
    realism: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        _check_names('colours', self.colours, drawing.PALETTE)
        _check_names('shapes', self.shapes, drawing.OUTLINES)
        _check_names('patterns', self.patterns, drawing.PATTERNS)
        for name in ('width', 'height'):
            _check(name, getattr(self, name), 16, 4096, integer=True)
        _check('max_objects', self.max_objects, 1, 1000, integer=True)
        _check('min_objects', self.min_objects, 1, self.max_objects, integer=True)
        _check('max_size', self.max_size, 4, min(self.width, self.height), integer=True)
        _check('min_size', self.min_size, 4, self.max_size, integer=True)
        _check('clutter', self.clutter, 0, 1000, integer=True)
        _check('skew', self.skew, 0, 10)
        _check('rotation', self.rotation, 0, 180)
        for name in ('empty_fraction', 'min_visible', 'realism'):
            _check(name, getattr(self, name), 0, 1)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Readable names such as "red circle" or "striped red circle"; the id of the first is 1."""
        return tuple(
            ' '.join(word for word in words if word != 'plain')
            for words in itertools.product(self.patterns, self.colours, self.shapes)
        )


class Scene(NamedTuple):
    """One picture and all there is to know about it; M objects, those behind first.

    Attributes:
        image: RGB uint8 [H,W,3].
        boxes: xyxy float32 [M,4], tight on the visible pixels; x2 and y2 lie one past the last pixel.
        masks: bool [M,H,W], the visible pixels; masks never overlap.
        category_ids: int64 [M], from 1.
        names: M category names.
        visible: float32 [M], the visible part of each object (cut off or hidden pixels are missing).
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    category_ids: NDArray[np.int64]
    names: tuple[str, ...]
    visible: NDArray[np.float32]


class _Placed(NamedTuple):
    coverage: drawing.FloatArray
    left: int
    top: int
    category: int  # -1: clutter
    visible: float


def draw_scene(spec: ShapesSpec, seed: int, index: int) -> Scene:
    """Draw one scene.

    Args:
        spec: the world.
        seed: of the world's chance.
        index: of the scene; each is independent of the others.

    Returns:
        the scene; the same for the same three arguments in one installation of NumPy and OpenCV.

    Raises:
        ValueError: seed or index is negative.
    """
    check_seed(seed)
    _check('index', index, 0, 2**31 - 1, integer=True)
    plan_rng, paint_rng = (
        np.random.Generator(np.random.PCG64(child))
        for child in np.random.SeedSequence([seed, index]).spawn(2)
    )
    things = _place(spec, plan_rng)
    return _annotate(spec, _paint(spec, things, paint_rng), things)


def _place(spec: ShapesSpec, rng: np.random.Generator) -> list[_Placed]:
    """Find a place for everything, from front to back, so that each knows what hides it."""
    taken = np.zeros((spec.height, spec.width), dtype=bool)
    placed = []
    for size, category in _choose(spec, rng):
        outline = drawing.blob(rng) if category < 0 else drawing.OUTLINES[_words(spec, category)[2]]
        reach = math.pi if category < 0 else math.radians(spec.rotation)
        angle = rng.uniform(-reach, reach)
        coverage = drawing.rasterise(outline, size, angle)
        mask = coverage >= 0.5
        full = int(mask.sum())
        for _ in range(_PLACING_TRIES):
            left = int(rng.integers(0, spec.width)) - mask.shape[1] // 2
            top = int(rng.integers(0, spec.height)) - mask.shape[0] // 2
            here, there = drawing.windows(spec.height, spec.width, mask.shape, left, top)
            seen = mask[there] & ~taken[here]
            visible = int(seen.sum()) / full
            if category < 0 or (visible >= spec.min_visible and _fits(seen, spec)):
                taken[here] |= mask[there]
                placed.append(_Placed(coverage, left, top, category, visible))
                break
    return placed[::-1]


def _choose(spec: ShapesSpec, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(size, category or -1) of everything in a scene, those in front first."""
    objects = (
        0 if rng.random() < spec.empty_fraction else int(rng.integers(spec.min_objects, spec.max_objects + 1))
    )
    clutter = int(rng.integers(0, spec.clutter + 1))
    names = len(spec.category_names)
    weights = np.arange(1, names + 1, dtype=np.float64) ** -spec.skew
    categories = np.searchsorted(np.cumsum(weights) / weights.sum(), rng.random(objects), side='right')
    categories = np.minimum(categories, names - 1)
    spread = math.log((spec.max_size + 1) / spec.min_size)
    # Between uniform in the logarithm (mostly tiny things) and uniform (mostly large ones).
    shares = rng.random(objects + clutter) ** _SIZE_POWER
    sizes = (spec.min_size * np.exp(spread * shares)).astype(np.int64)
    # Small things tend to lie in front; otherwise large ones would swallow them.
    order = np.argsort(sizes * np.exp(rng.uniform(-0.7, 0.7, sizes.size)), kind='stable')
    kinds = [*categories.tolist(), *[-1] * clutter]
    return [(min(int(sizes[i]), spec.max_size), kinds[i]) for i in order]


def _fits(seen: NDArray[np.bool_], spec: ShapesSpec) -> bool:
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if rows.size == 0:
        return False
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    return bool(spec.min_size <= longest <= spec.max_size)


def _words(spec: ShapesSpec, category: int) -> tuple[str, str, str]:
    rest, shape = divmod(category, len(spec.shapes))
    pattern, colour = divmod(rest, len(spec.colours))
    return spec.patterns[pattern], spec.colours[colour], spec.shapes[shape]


def _paint(spec: ShapesSpec, things: list[_Placed], rng: np.random.Generator) -> NDArray[np.uint8]:
    canvas = drawing.background(spec.height, spec.width, spec.realism, rng)
    light, shadow = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.5)
    for thing in things:
        if thing.category < 0:
            pattern, colour = 'plain', drawing.muted(rng)
        else:
            pattern, name, _ = _words(spec, thing.category)
            colour = np.array(drawing.PALETTE[name], dtype=np.float32)
        lit = drawing.surface(thing.coverage, colour, pattern, spec.realism, light, rng)
        drawing.cast_shadow(canvas, thing.coverage, thing.left, thing.top, light, spec.realism * shadow)
        here, there = drawing.windows(spec.height, spec.width, thing.coverage.shape, thing.left, thing.top)
        alpha = thing.coverage[there][..., None]
        canvas[here] += alpha * (lit[there] - canvas[here])
    return drawing.photograph(canvas, spec.realism, rng)


def _annotate(spec: ShapesSpec, image: NDArray[np.uint8], things: list[_Placed]) -> Scene:
    owner = np.full((spec.height, spec.width), -1, dtype=np.int32)
    for number, thing in enumerate(things):
        here, there = drawing.windows(spec.height, spec.width, thing.coverage.shape, thing.left, thing.top)
        owner[here][thing.coverage[there] >= 0.5] = number
    kept = [number for number, thing in enumerate(things) if thing.category >= 0]
    masks = owner[None] == np.array(kept, dtype=np.int32).reshape(-1, 1, 1)  # [M,H,W]
    ids = np.array([things[number].category + 1 for number in kept], dtype=np.int64)
    return Scene(
        image=image,
        boxes=_tight_boxes(masks),
        masks=masks,
        category_ids=ids,
        names=tuple(spec.category_names[i - 1] for i in ids),
        visible=np.array([things[number].visible for number in kept], dtype=np.float32),
    )


def _tight_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[M,H,W] -> xyxy [M,4]; every mask has a pixel."""
    boxes = np.zeros((len(masks), 4), dtype=np.float32)
    for axis, column in ((1, 0), (2, 1)):
        profile = np.asarray(masks.any(axis=axis))  # [M,W] or [M,H]
        boxes[:, column] = profile.argmax(axis=1)
        boxes[:, column + 2] = profile.shape[1] - profile[:, ::-1].argmax(axis=1)
    return boxes


def check_seed(seed: int) -> None:
    """Refuse a seed that is no integer from 0 to 2**63 - 1.

    Raises:
        ValueError: with the offending seed.
    """
    _check('seed', seed, 0, 2**63 - 1, integer=True)


def _check(name: str, value: float, low: float, high: float, integer: bool = False) -> None:
    kinds = (int,) if integer else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = 'an integer' if integer else 'a number'
        raise ValueError(f'{name} must be {kind} from {low} to {high}, but is {value!r}.')


def _check_names(field: str, names: tuple[str, ...], known: Collection[str]) -> None:
    if not isinstance(names, tuple) or not names or len(set(names)) != len(names):
        raise ValueError(f'{field} must be a tuple of one or more different names, but is {names!r}.')
    for name in names:
        if name not in known:
            raise ValueError(f'{field} has the unknown name {name!r}; known are {", ".join(known)}.')
