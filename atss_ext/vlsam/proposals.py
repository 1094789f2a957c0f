"""Masks of all views, questions and stages on their way to the suppression, kept as run lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle
from torch import Tensor

from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.ensemble import View, place
from atss_ext.vlsam.protocols import Segmentation

# Side of the canvas on which kept attention maps of all views lie.
MAP_SIDE = 96


class Proposals:
    """What was proposed for one image; grows by run lengths, not by pixels.

    Args:
        size: (H, W) of the image, pixels.
        keep_maps: keep the attention maps, as coarse as the model's tokens are and once for all stages.
        drop_cut: leave out what touches a side along which its view cuts the image.
    """

    def __init__(self, size: tuple[int, int], keep_maps: bool = False, drop_cut: bool = False) -> None:
        self.size, self.keep_maps, self.drop_cut = size, keep_maps, drop_cut
        self._boxes: list[list[int]] = []
        self._scores: list[float] = []
        self._names: list[str] = []
        self._run_lengths: list[dict[str, Any]] = []
        self._parts: list[dict[str, float]] = []
        self._maps: list[tuple[NDArray[np.float32], View]] = []

    def __len__(self) -> int:
        return len(self._names)

    def add(
        self,
        stage: Segmentation,
        scores: Tensor,
        parts: Mapping[str, Tensor],
        names: Sequence[str],
        maps: NDArray[np.float32],
        view: View,
    ) -> None:
        """Take the masks of O objects of one view; empty masks are none.

        Args:
            stage: their masks, at the size of the view.
            scores: float [O].
            parts: of the scores, name to float [O].
            names: O names.
            maps: float32 [O, R, C], their attention over the view.
            view: where in the image it lies.
        """
        masks = stage.masks.cpu().numpy()
        values = {key: part.tolist() for key, part in parts.items()}
        for index, score in enumerate(scores.tolist()):
            box = tight_box(masks[index])
            if box is None:
                continue
            placed = place(np.array(box), view)
            if self.drop_cut and _is_cut(placed, view, self.size):
                continue
            self._boxes.append(placed.tolist())
            self._scores.append(score)
            self._names.append(names[index])
            self._run_lengths.append(_encode(masks[index], view, self.size))
            self._parts.append({key: part[index] for key, part in values.items()})
            if self.keep_maps:
                self._maps.append((maps[index], view))

    def as_detections(self, answers: list[dict[str, str]]) -> Detections:
        """All of them, in the order they came, without maps."""
        keys = self._parts[0] if self._parts else ()
        return Detections(
            size=self.size,
            boxes=np.array(self._boxes, np.float32).reshape(-1, 4),
            scores=np.array(self._scores, np.float32),
            names=self._names,
            run_lengths=self._run_lengths,
            parts={key: np.array([part[key] for part in self._parts], np.float32) for key in keys},
            answers=answers,
        )

    def maps_of(self, indices: Sequence[int]) -> NDArray[np.float32] | None:
        """Maps of some proposals over the whole image, [D, MAP_SIDE, MAP_SIDE]; None if not kept."""
        if not self.keep_maps:
            return None
        maps = [_place_map(*self._maps[index], self.size) for index in indices]
        return np.stack(maps) if maps else np.zeros((0, MAP_SIDE, MAP_SIDE), np.float32)


def _is_cut(box: NDArray[np.int64], view: View, size: tuple[int, int]) -> bool:
    """Whether a box of the image touches a side of its view that is no side of the image."""
    sides = np.array([0, 0, size[1], size[0]])
    return bool(((box == view.box) & (view.box != sides)).any())


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """The box (x1, y1, x2, y2) around a mask [H, W], x2 and y2 one past its last pixel; None if empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _encode(mask: NDArray[np.bool_], view: View, size: tuple[int, int]) -> dict[str, Any]:
    """Run lengths of a view's mask in the whole image."""
    x1, y1, x2, y2 = view.box
    whole = np.zeros(size, np.uint8, order='F')
    whole[y1:y2, x1:x2] = mask
    return rle.encode(whole)


def _place_map(values: NDArray[np.float32], view: View, size: tuple[int, int]) -> NDArray[np.float32]:
    """A view's attention map, stretched to 0..1, on the canvas of the whole image."""
    span = float(values.max() - values.min())
    values = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    scale = np.array([MAP_SIDE / size[1], MAP_SIDE / size[0]] * 2)
    x1, y1, x2, y2 = np.round(np.array(view.box) * scale).astype(int).tolist()
    canvas = np.zeros((MAP_SIDE, MAP_SIDE), np.float32)
    if x2 > x1 and y2 > y1:
        canvas[y1:y2, x1:x2] = cv2.resize(values, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR)
    return canvas
