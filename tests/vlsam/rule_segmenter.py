"""A segmenter by rule, for images made of flat-coloured regions: known masks without weights."""

import numpy as np
import torch
from torch import Tensor

from atss_ext.vlsam.protocols import Embedding, Image, Segmentation, VlsamError

STRIDE = 4  # pixels of the image to one of the mask logits
CONFIDENCE = 8.0  # the mask logit where a mask fills everything, and minus where it fills nothing


class RuleSegmenter:
    """Satisfies ``atss_ext.vlsam.protocols.Segmenter``; everything it does is exact and on the CPU.

    The mask of an object is the connected region (edges, not corners) of the very colour of its positive
    point; several positive points give the union of their regions. Points are clipped to the image and
    belong to the pixel they lie in: (3.9, 0.2) to the one in column 3 of row 0. A box without a positive
    point gives the region whose own bounding box overlaps it most.

    The IoU is 1, and ``penalty`` less where a negative point lies in the mask. The mask does not yield to a
    negative point, nor to ``mask_logits``, and there is one proposal whatever ``multimask`` says: only
    points and boxes decide. Mask logits have a quarter of the image's height and width, rounded up; they run
    from -8 to 8 with the share of their cell the mask covers, 0 at half.

    Args:
        penalty: off the IoU where a negative point lies in the mask.

    Attributes:
        embedded: how many images were looked at.
        calls: what ``segment`` was called with, one dict a call, in order.
    """

    def __init__(self, penalty: float = 0.5) -> None:
        self.penalty = penalty
        self.embedded = 0
        self.calls: list[dict] = []

    def embed(self, image: Image) -> Embedding:
        """Number the regions of an RGB uint8 image [H, W, 3]."""
        self.embedded += 1
        return Embedding(image.shape[:2], torch.from_numpy(regions(image)))

    def segment(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask_logits: Tensor | None = None,
        boxes: Tensor | None = None,
        multimask: bool = True,
    ) -> Segmentation:
        """See the class."""
        self.calls.append(
            {
                'points': points,
                'labels': labels,
                'mask_logits': mask_logits,
                'boxes': boxes,
                'multimask': multimask,
            }
        )
        (height, width), numbered = embedding
        masks = torch.zeros(len(points), height, width, dtype=torch.bool)
        ious = torch.ones(len(points))
        corners = torch.tensor([width - 1, height - 1])
        for number, (spots, kinds) in enumerate(zip(points, labels, strict=True)):
            x, y = spots.floor().long().clamp(min=0).minimum(corners).unbind(-1)
            wanted = numbered[y, x][kinds == 1]
            if not len(wanted) and boxes is not None:
                wanted = best_region(numbered, boxes[number])[None]
            if not len(wanted):
                raise VlsamError(f'Object {number} has neither a positive point nor a box.')
            masks[number] = torch.isin(numbered, wanted)
            if bool(masks[number][y, x][kinds == 0].any()):
                ious[number] -= self.penalty
        return Segmentation(masks, ious, (2 * coverage(masks) - 1) * CONFIDENCE)


def regions(image: Image) -> np.ndarray:
    """A number for each pixel [H, W], the same for two where a path of one colour joins them.

    Each pixel takes the lowest number among its neighbours of the same colour, and then the number that
    stands at the pixel it is numbered after, until nothing changes.
    """
    height, width = image.shape[:2]
    numbers = np.arange(height * width).reshape(height, width)
    right = (image[:, 1:] == image[:, :-1]).all(-1)
    below = (image[1:] == image[:-1]).all(-1)
    while True:
        lowest = numbers.copy()
        joined = np.where(right, np.minimum(lowest[:, 1:], lowest[:, :-1]), height * width)
        lowest[:, 1:] = np.minimum(lowest[:, 1:], joined)
        lowest[:, :-1] = np.minimum(lowest[:, :-1], joined)
        joined = np.where(below, np.minimum(lowest[1:], lowest[:-1]), height * width)
        lowest[1:] = np.minimum(lowest[1:], joined)
        lowest[:-1] = np.minimum(lowest[:-1], joined)
        lowest = lowest.ravel()[lowest]
        if (lowest == numbers).all():
            return numbers
        numbers = lowest


def best_region(numbered: Tensor, box: Tensor) -> Tensor:
    """The region whose bounding box has the highest IoU with ``box`` (xyxy); the lowest number of equals."""
    found = []
    for number in numbered.unique():
        rows, columns = (numbered == number).nonzero().unbind(1)
        own = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        low, high = torch.maximum(own[:2], box[:2]), torch.minimum(own[2:], box[2:])
        shared = (high - low).clamp(min=0).prod()
        found.append(shared / ((own[2:] - own[:2]).prod() + (box[2:] - box[:2]).prod() - shared))
    return numbered.unique()[torch.stack(found).argmax()]


def coverage(masks: Tensor) -> Tensor:
    """The share of each cell of 4 x 4 pixels that a mask [O, H, W] covers; cells at the edge may be cut."""
    height, width = masks.shape[-2:]
    rows, columns = -(-height // STRIDE), -(-width // STRIDE)
    padded = torch.zeros(len(masks), rows * STRIDE, columns * STRIDE)
    padded[:, :height, :width] = masks.float()
    inside = torch.zeros_like(padded[:1])
    inside[:, :height, :width] = 1

    def cells(area: Tensor) -> Tensor:
        return area.view(-1, rows, STRIDE, columns, STRIDE).sum((2, 4))

    return cells(padded) / cells(inside)
