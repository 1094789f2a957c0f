"""How image processors cut an image up: plain arithmetic on sizes.

What transformers computes on the way to the pixels and does not hand out: the same rounding, so that a
token's place in the image is exact. All sizes are (height, width).
"""

import math

Size = tuple[int, int]
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def shortest_edge_size(size: Size, edge: int) -> Size:
    """The size after the shorter side was brought to ``edge``, the aspect ratio kept."""
    height, width = size
    if height <= width:
        return edge, int(edge * width / height)
    return int(edge * height / width), edge


def padded_square(size: Size) -> tuple[Size, Size]:
    """The square an image is pasted into the middle of, and (top, left) of the image in it."""
    side = max(size)
    return (side, side), ((side - size[0]) // 2, (side - size[1]) // 2)


def window_box(size: Size, canvas: Size, paste: Size, resized: Size, crop: Size, seen: Size) -> Box:
    """The part of the image a centre crop sees.

    Args:
        size: of the image.
        canvas: of what it was pasted into, in its own pixels; its own size where it was not.
        paste: (top, left) of the image on the canvas.
        resized: of the canvas, after resizing.
        crop: of the centre crop, in resized pixels; larger than ``resized`` where it is padded.
        seen: of what patches cover, from the crop's top left corner.

    Returns:
        xyxy, fractions of the image; outside of 0..1 on borders.
    """
    spans = []
    for axis in (1, 0):
        margin = resized[axis] - crop[axis]
        start = margin // 2 if margin >= 0 else -(-margin // 2)
        scale = canvas[axis] / resized[axis]
        spans.append([(edge * scale - paste[axis]) / size[axis] for edge in (start, start + seen[axis])])
    (x1, x2), (y1, y2) = spans
    return x1, y1, x2, y2


def anyres_window(size: Size, canvas: Size, tokens: Size) -> tuple[slice, slice, Box]:
    """LLaVA-Next: which rows and columns of tokens remain when the padding around an image is dropped.

    Args:
        size: of the image.
        canvas: of the tiles together, in pixels; the image is fitted into its middle.
        tokens: of the tiles together.

    Returns:
        rows, columns (either may be empty), and the part of the image they cover.
    """
    height, width = size
    by_width = width / height > tokens[1] / tokens[0]
    # transformers rounds like this, in tokens, so that borders of less than a token stay.
    if by_width:
        scaled = int(round(height * (tokens[1] / width), 7))
        padding = ((tokens[0] - scaled) // 2, 0)
    else:
        scaled = int(round(width * (tokens[0] / height), 7))
        padding = (0, (tokens[1] - scaled) // 2)
    fitted = _fit(size, canvas)
    edges = []
    for axis in (1, 0):
        pixels = canvas[axis] / tokens[axis]
        paste = (canvas[axis] - fitted[axis]) // 2
        ends = (padding[axis], tokens[axis] - padding[axis])
        edges.append([(end * pixels - paste) / fitted[axis] for end in ends])
    (x1, x2), (y1, y2) = edges
    rows, columns = (slice(p, t - p) for p, t in zip(padding, tokens, strict=True))
    return rows, columns, (x1, y1, x2, y2)


def _fit(size: Size, canvas: Size) -> Size:
    """The largest size of the same aspect ratio on the canvas."""
    (height, width), (canvas_height, canvas_width) = size, canvas
    by_width, by_height = canvas_width / width, canvas_height / height
    if by_width < by_height:
        return min(math.ceil(height * by_width), canvas_height), canvas_width
    return canvas_height, min(math.ceil(width * by_height), canvas_width)


def closest_canvas(size: Size, tile: Size, min_tiles: int, max_tiles: int) -> Size:
    """InternVL: rows and columns of tiles whose aspect ratio is closest to the image's.

    Args:
        size: of the image.
        tile: of a tile, in pixels.
        min_tiles: at least so many.
        max_tiles: at most so many.

    Returns:
        (rows, columns). Of equally close ones, the larger, while the image has more than half its pixels.
    """
    height, width = size
    arrangements = [
        (rows, columns)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles + 1)
        if min_tiles <= rows * columns <= max_tiles
    ]
    best, best_gap = (1, 1), math.inf
    for rows, columns in sorted(arrangements, key=math.prod):
        gap = abs(width / height - columns / rows)
        large = height * width > 0.5 * math.prod(tile) * rows * columns
        if gap < best_gap or (gap == best_gap and large):
            best, best_gap = (rows, columns), gap
    return best


def split_tiles(size: Size, longest_edge: int | None, tile: int, limit: int = 4096) -> Size:
    """SmolVLM and Idefics3: rows and columns an image is split into; (1, 1) is not split.

    Args:
        size: of the image.
        longest_edge: the image's longer side is brought to it first; None is not.
        tile: side of a square tile, in pixels.
        limit: no side is longer than this before tiles are made.
    """
    if longest_edge is not None:
        height, width = _with_long_side(size, longest_edge)
        height, width = (height + height % 2, width) if width >= height else (height, width + width % 2)
        size = max(height, 1), max(width, 1)
        if max(size) > limit:
            height, width = _with_long_side(size, limit)
            size = max(height, 1), max(width, 1)
    height, width = size
    # The long side goes to a multiple of tiles, the short one follows, then goes up to a multiple itself.
    if width >= height:
        columns = math.ceil(width / tile)
        return math.ceil(int(columns * tile / (width / height)) / tile), columns
    rows = math.ceil(height / tile)
    return rows, math.ceil(int(rows * tile * (width / height)) / tile)


def _with_long_side(size: Size, edge: int) -> Size:
    """The size with its longer side at ``edge``, rounded down."""
    height, width = size
    if width >= height:
        return int(edge / (width / height)), edge
    return edge, int(edge * (width / height))
