"""Pictures of the page: small images are enlarged, so that boxes and names can be seen."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.shapes_drawing import PALETTE
from atss_ext.visualization.detections import name_colour
from atss_ext.visualization.overlay import Colour, heat_over, overlay_frame
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.protocols import Image

_LEAST, _MOST = 560, 1600
_DIMMED = 0.3


def scale_of(image: Image) -> float:
    """Pixels on the page per pixel of the image: its longest side is neither tiny nor huge there."""
    longest = max(image.shape[:2])
    return float(np.clip(1.0, _LEAST / longest, max(_LEAST, _MOST) / longest))


def scaled(image: Image, scale: float) -> Image:
    """An image at the size of the page."""
    if scale == 1:
        return image
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    way = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)


def picture_of_boxes(
    image: Image, boxes: NDArray[np.floating], names: Sequence[str], scores: NDArray[np.floating]
) -> Image:
    """An image with boxes xyxy [D, 4], names and scores [D]."""
    scale = scale_of(image)
    placed = np.asarray(boxes) * scale
    large = _boxed(scaled(image, scale), placed, names)
    return overlay_frame(large, placed, names, scores, colours=_colours(names))


def picture_of_found(image: Image, found: Detections) -> Image:
    """An image with what VL-SAM found: masks, boxes, names and scores."""
    scale = scale_of(image)
    large = scaled(image, scale)
    placed = found.boxes * scale
    return overlay_frame(
        _boxed(large, placed, found.names),
        placed,
        found.names,
        found.scores,
        lambda index: _mask(found, index, large),
        colours=_colours(found.names),
    )


def picture_of_attention(image: Image, attention: NDArray[np.floating]) -> Image:
    """One attention map [R, C] over the faded image."""
    return heat_over(scaled(image, scale_of(image)), attention)


def picture_of_masks(image: Image, found: Detections, indices: Sequence[int]) -> Image:
    """The image, dark but for the masks of some objects."""
    large = scaled(image, scale_of(image))
    masks = [_mask(found, index, large) for index in indices]
    lit = np.any(masks, axis=0)
    canvas = np.where(lit[..., None], large, (large * _DIMMED).astype(np.uint8))
    for mask in masks:
        _outline(canvas, mask)
    return canvas


def _boxed(large: Image, boxes: NDArray[np.floating], names: Sequence[str]) -> Image:
    """A copy with boxes on a dark edge, so that they are seen also where they have the object's colour."""
    canvas, colours = np.array(large), _colours(names)
    corners = np.rint(np.clip(boxes, -1e6, 1e6)).astype(int).tolist()
    for thickness, dark in ((5, True), (3, False)):
        for (x1, y1, x2, y2), name in zip(corners, names, strict=True):
            colour = (0, 0, 0) if dark else name_colour(name, colours)
            cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour, thickness)
    return canvas


def _colours(names: Sequence[str]) -> dict[str, Colour]:
    """What is called after a colour has that colour."""
    return {
        name: PALETTE[name.split()[0]] for name in names if name.split()[:1] and name.split()[0] in PALETTE
    }


def _outline(canvas: Image, mask: NDArray[np.bool_]) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(canvas, contours, -1, (255, 255, 255), 2, cv2.LINE_AA)


def _mask(found: Detections, index: int, large: Image) -> NDArray[np.bool_]:
    """A mask at the size of the page, smooth where it is enlarged."""
    size = large.shape[1::-1]
    cover = cv2.resize(found.mask(index).astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cover) >= 128
