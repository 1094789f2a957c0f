"""How the shapes world looks: outlines, palette, and the light, lens and sensor of its camera.

Everything here is arithmetic on arrays: a random generator comes in from outside, so that a
picture follows from its seed alone.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Contours = tuple[NDArray[np.float64], ...]

# Name -> RGB. The first four are the default world: far apart in hue, so that shading keeps them apart.
PALETTE: dict[str, tuple[int, int, int]] = {
    'red': (214, 38, 40),
    'green': (40, 160, 60),
    'blue': (38, 82, 216),
    'yellow': (236, 206, 36),
    'orange': (240, 128, 24),
    'purple': (128, 48, 176),
    'cyan': (36, 200, 214),
    'pink': (244, 136, 182),
    'magenta': (216, 32, 160),
    'lime': (150, 226, 40),
    'teal': (16, 128, 124),
    'brown': (126, 74, 36),
    'navy': (24, 32, 104),
    'maroon': (118, 16, 36),
    'olive': (124, 124, 24),
    'beige': (226, 206, 164),
    'white': (240, 240, 240),
    'grey': (128, 128, 128),
    'black': (24, 24, 24),
    'turquoise': (64, 224, 184),
}

# How a surface is patterned; 'plain' adds no word to a category's name.
PATTERNS = ('plain', 'striped', 'dotted', 'checkered')

_SUPERSAMPLE = 4
_SUBPIXEL_BITS = 4


def _polygon(corners: int, phase: float = -math.pi / 2) -> Contours:
    angles = phase + np.arange(corners) * (2 * math.pi / corners)
    return (np.stack([np.cos(angles), np.sin(angles)], axis=1),)


def _spikes(tips: int, inner: float) -> Contours:
    angles = -math.pi / 2 + np.arange(2 * tips) * (math.pi / tips)
    radii = np.where(np.arange(2 * tips) % 2 == 0, 1.0, inner)
    return (np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1),)


def _points(*xy: tuple[float, float]) -> Contours:
    return (np.array(xy, dtype=np.float64),)


def _heart() -> Contours:
    t = np.arange(72) * (2 * math.pi / 72)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return (np.stack([x, y], axis=1),)


def _crescent() -> Contours:
    outer = np.linspace(0.9, 2 * math.pi - 0.9, 60)
    tip_x, tip_y = math.cos(0.9), math.sin(0.9)
    centre = 0.75
    start = math.atan2(-tip_y, tip_x - centre) % (2 * math.pi)
    radius = math.hypot(tip_x - centre, tip_y)
    inner = np.linspace(start, 2 * math.pi - start, 40)[1:-1]
    return (
        np.concatenate(
            [
                np.stack([np.cos(outer), np.sin(outer)], axis=1),
                np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], axis=1),
            ]
        ),
    )


# Name -> closed contours in any units; several contours make holes (even-odd rule).
OUTLINES: dict[str, Contours] = {
    'circle': _polygon(72),
    'square': _polygon(4, phase=math.pi / 4),
    'triangle': _polygon(3),
    'star': _spikes(5, 0.42),
    'cross': _points(
        (-1, -3),
        (1, -3),
        (1, -1),
        (3, -1),
        (3, 1),
        (1, 1),
        (1, 3),
        (-1, 3),
        (-1, 1),
        (-3, 1),
        (-3, -1),
        (-1, -1),
    ),
    'heart': _heart(),
    'ring': (_polygon(72)[0], 0.55 * _polygon(72)[0]),
    'crescent': _crescent(),
    'hexagon': _polygon(6),
    'arrow': _points((-3, -1), (0.5, -1), (0.5, -2.4), (3, 0), (0.5, 2.4), (0.5, 1), (-3, 1)),
    'ellipse': (_polygon(72)[0] * np.array([1.0, 0.5]),),
    'bar': _points((-4, -1), (4, -1), (4, 1), (-4, 1)),
    'gear': _spikes(9, 0.7),
    'frame': (_polygon(4, phase=math.pi / 4)[0], 0.6 * _polygon(4, phase=math.pi / 4)[0]),
    'lens': _points(
        *((math.cos(t), 0.5 * math.sin(t) * abs(math.sin(t))) for t in np.arange(72) * math.pi / 36)
    ),
    'bolt': _points((0.4, -3), (-1.6, 0.4), (-0.2, 0.4), (-0.8, 3), (1.6, -0.8), (0.2, -0.8), (1.2, -3)),
    'pentagon': _polygon(5),
    'hourglass': _points((-1, -1), (1, -1), (0.12, 0), (1, 1), (-1, 1), (-0.12, 0)),
}


def blob(rng: np.random.Generator) -> Contours:
    """An irregular outline that is no shape of the world (clutter)."""
    corners = int(rng.integers(6, 12))
    angles = (np.arange(corners) + 0.6 * rng.random(corners)) * (2 * math.pi / corners)
    radii = 0.45 + 0.55 * rng.random(corners)
    squeeze = 0.25 + 0.75 * rng.random()
    return (np.stack([radii * np.cos(angles), squeeze * radii * np.sin(angles)], axis=1),)


def rasterise(contours: Contours, size: int, angle: float) -> FloatArray:
    """How much of every pixel a shape covers, cropped to the pixels it owns.

    Args:
        contours: closed outlines [K,2]; several make holes.
        size: longest side, in pixels, of the tight box of the pixels covered by half or more.
        angle: rotation in radians.

    Returns:
        coverage in 0..1, [h,w]; ``coverage >= 0.5`` is the mask and max(h, w) differs from
        ``size`` by one pixel at most.
    """
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turned = [contour @ turn.T for contour in contours]
    low = np.min([c.min(axis=0) for c in turned], axis=0)
    extent = np.max([c.max(axis=0) for c in turned], axis=0) - low
    length = float(size)
    for _ in range(3):
        coverage = _fill(
            [(c - low) * (length / extent.max()) for c in turned], extent * (length / extent.max())
        )
        inside = coverage >= 0.5
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if rows.size:
            coverage = coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            if max(coverage.shape) == size:
                break
        # Thin tips cover less than half a pixel: such shapes are drawn a little larger.
        length += 0.7 * (size - (max(coverage.shape) if rows.size else 0))
    return np.ascontiguousarray(coverage)


def _fill(contours: list[NDArray[np.float64]], extent: NDArray[np.float64]) -> FloatArray:
    width, height = (math.ceil(side) + 2 for side in extent)
    margin = (np.array([width, height]) - extent) / 2
    canvas = np.zeros((height * _SUPERSAMPLE, width * _SUPERSAMPLE), dtype=np.uint8)
    scale = _SUPERSAMPLE << _SUBPIXEL_BITS
    # fillPoly counts from pixel centres, outlines from pixel corners.
    fixed = [np.round((c + margin) * scale - (1 << (_SUBPIXEL_BITS - 1))).astype(np.int32) for c in contours]
    cv2.fillPoly(canvas, fixed, 255, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(
        255
    )


def muted(rng: np.random.Generator) -> FloatArray:
    """A colour of little chroma, unlike the palette's default colours, RGB [3]."""
    return (rng.uniform(50, 205) + rng.uniform(-18, 18, 3)).astype(np.float32)


def background(height: int, width: int, realism: float, rng: np.random.Generator) -> FloatArray:
    """A wall or a table: two colours in a gradient, patches of texture, sometimes an edge; RGB [H,W,3]."""
    first, second = muted(rng), muted(rng)
    direction, split, bend = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.8), rng.random()
    grids = [rng.standard_normal((n, n + 1, 1 if n > 8 else 3), dtype=np.float32) for n in (4, 12, 40)]
    strength = rng.uniform(3, 14, size=3).astype(np.float32)
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    ramp = (x - 0.5) * np.float32(math.cos(direction)) + (y - 0.5) * np.float32(math.sin(direction)) + 0.5
    if bend < 0.4:  # two surfaces that meet
        ramp = np.where(ramp > split, ramp * np.float32(0.4) + np.float32(0.6), ramp * np.float32(0.4))
    scene = first + (second - first) * (np.clip(ramp, 0, 1) * np.float32(realism))[..., None]
    for grid, amount in zip(grids, strength * np.array([1.0, 0.7, 0.5], dtype=np.float32), strict=True):
        texture = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        scene += (amount * np.float32(realism)) * texture.reshape(height, width, -1)
    return scene


def surface(
    coverage: FloatArray,
    colour: FloatArray,
    pattern: str,
    realism: float,
    light: float,
    rng: np.random.Generator,
) -> FloatArray:
    """The lit surface of one object, RGB [h,w,3].

    Args:
        coverage: of the object, [h,w].
        colour: RGB [3], 0..255.
        pattern: one of :data:`PATTERNS`.
        realism: 0 gives the flat colour, 1 full shading.
        light: direction the light comes from, in radians.
        rng: draws the object's own brightness, tint and gloss.
    """
    height, width = coverage.shape
    brightness, gloss, depth = rng.uniform(0.78, 1.08), rng.uniform(0, 90), rng.uniform(0.08, 0.3)
    tint, phase = rng.uniform(-14, 14, 3), rng.uniform(0, math.pi)
    reach = np.float32(max(height, width) / 2)
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) / reach
    y = (np.arange(height, dtype=np.float32)[:, None] - np.float32((height - 1) / 2)) / reach
    toward = x * np.float32(math.cos(light)) + y * np.float32(math.sin(light))
    across = y * np.float32(math.cos(light)) - x * np.float32(math.sin(light))
    rim = cv2.blur(
        coverage, (max(3, width // 6 | 1), max(3, height // 6 | 1)), borderType=cv2.BORDER_CONSTANT
    )
    shade = (
        np.float32(brightness)
        * (1 + np.float32(depth) * toward)
        * (np.float32(0.75) + np.float32(0.25) * rim)
    )
    shade = 1 + np.float32(realism) * (shade - 1)
    shade *= _pattern(pattern, x, y, phase)
    spot = np.maximum(0, 1 - 6 * ((toward - np.float32(0.4)) ** 2 + across**2))
    highlight = np.float32(realism * gloss) * spot * spot
    return (colour + np.float32(realism) * tint.astype(np.float32)) * shade[..., None] + highlight[..., None]


def _pattern(name: str, x: FloatArray, y: FloatArray, phase: float) -> FloatArray:
    along = x * np.float32(math.cos(phase)) + y * np.float32(math.sin(phase))
    across = y * np.float32(math.cos(phase)) - x * np.float32(math.sin(phase))
    if name == 'striped':
        dark = np.floor(along * np.float32(3.5)) % 2 == 0
    elif name == 'checkered':
        dark = (np.floor(along * np.float32(2.5)) + np.floor(across * np.float32(2.5))) % 2 == 0
    elif name == 'dotted':
        cell = np.float32(0.45)
        dark = ((along % cell) - cell / 2) ** 2 + ((across % cell) - cell / 2) ** 2 < np.float32(0.02)
    else:
        return np.ones_like(along)
    return np.where(dark, np.float32(0.45), np.float32(1))


def cast_shadow(
    canvas: FloatArray, coverage: FloatArray, left: int, top: int, light: float, amount: float
) -> None:
    """Darken, in place, what lies behind an object on the side away from the light."""
    height, width = coverage.shape
    reach = max(1, round(0.06 * max(height, width)))
    soft = cv2.copyMakeBorder(coverage, reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    soft = cv2.blur(soft, (2 * reach + 1, 2 * reach + 1), borderType=cv2.BORDER_CONSTANT)
    left += round(-reach * math.cos(light)) - reach
    top += round(-reach * math.sin(light)) - reach
    here, there = windows(canvas.shape[0], canvas.shape[1], soft.shape, left, top)
    canvas[here] *= 1 - np.float32(amount) * soft[there][..., None]


def windows(
    height: int, width: int, patch: tuple[int, ...], left: int, top: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of an image a patch falls on, and the part of the patch that falls on it."""
    y0, y1 = max(0, top), max(0, min(height, top + patch[0]))
    x0, x1 = max(0, left), max(0, min(width, left + patch[1]))
    return (slice(y0, y1), slice(x0, x1)), (
        slice(y0 - top, max(y0, y1) - top),
        slice(x0 - left, max(x0, x1) - left),
    )


def photograph(canvas: FloatArray, realism: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Lens and sensor: vignette, white balance, blur, shot and read noise; RGB uint8 [H,W,3]."""
    height, width, _ = canvas.shape
    exposure, falloff, blur = rng.uniform(0.78, 1.12), rng.uniform(0, 0.3), rng.uniform(0, 0.9)
    balance, read, shot = rng.uniform(0.94, 1.06, 3), rng.uniform(1, 5), rng.uniform(0.0, 0.3)
    if realism > 0:
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        gain = np.float32(exposure) * (1 - np.float32(falloff / 2) * (x * x + y * y))
        gain = gain[..., None] * balance.astype(np.float32)
        canvas = canvas * (1 + np.float32(realism) * (gain - 1))
        if blur > 0.3:
            canvas = np.asarray(cv2.GaussianBlur(canvas, (5, 5), realism * blur), dtype=np.float32)
        grain = rng.standard_normal(canvas.shape, dtype=np.float32)
        spread = np.float32(read) + np.float32(shot) * np.sqrt(np.maximum(canvas, 0))
        canvas = canvas + np.float32(realism) * spread * grain
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
