"""What VL-SAM found in one image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle


def empty_boxes() -> NDArray[np.float32]:
    """No boxes, [0, 4]."""
    return np.zeros((0, 4), np.float32)


@dataclass
class Detections:
    """D objects of one image, best first.

    Masks are kept as run lengths, so that a thousand objects of a large photograph fit into memory.

    Attributes:
        size: (H, W) of the image, pixels.
        boxes: float32 [D, 4], xyxy in pixels of the image.
        scores: float32 [D], the confidence (0..1).
        names: D names as the VLM gave them.
        run_lengths: D masks as COCO run lengths (``counts`` are bytes, ``size`` is [H, W]).
        parts: what the scores are made of: name of the factor -> float32 [D].
        maps: float32 [D, R, C], each object's attention map over the image, 0..1; None where not kept.
        answers: what the VLM said, for each view and question: ``{'view', 'question', 'text'}``.
    """

    size: tuple[int, int]
    boxes: NDArray[np.float32] = field(default_factory=empty_boxes)
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    names: list[str] = field(default_factory=list)
    run_lengths: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    maps: NDArray[np.float32] | None = None
    answers: list[dict[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """All masks, decoded: bool [D, H, W]; D * H * W bytes."""
        if not self.run_lengths:
            return np.zeros((0, *self.size), bool)
        return np.stack([self.mask(index) for index in range(len(self))])

    def mask(self, index: int) -> NDArray[np.bool_]:
        """One mask, decoded: bool [H, W]."""
        return rle.decode(self.run_lengths[index]).astype(bool)

    def select(self, keep: Sequence[int]) -> 'Detections':
        """The detections at ``keep``, in its order."""
        index = np.asarray(keep, np.int64)
        return Detections(
            size=self.size,
            boxes=self.boxes[index],
            scores=self.scores[index],
            names=[self.names[i] for i in index],
            run_lengths=[self.run_lengths[i] for i in index],
            parts={name: values[index] for name, values in self.parts.items()},
            maps=None if self.maps is None else self.maps[index],
            answers=self.answers,
        )
