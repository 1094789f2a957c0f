"""Boxes as distances from a point, in strides: what the official code calls REGRESSION_TYPE POINT."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.task_modules.coders.base_bbox_coder import BaseBBoxCoder
from mmdet.structures.bbox import bbox2distance, distance2bbox
from torch import Tensor


class PointDistanceCoder(BaseBBoxCoder):
    """A box as left, top, right and bottom distance from a prior's centre, in strides of the prior's level.

    ATSS section 3.2, "regression starting status: a point"; official code, ``BoxCoder`` of
    ``atss_core/modeling/rpn/atss/atss.py``: a distance is divided by the anchor's side and multiplied by the
    sides of the first level's anchor in strides (``ANCHOR_SIZES[0] / ANCHOR_STRIDES[0]``). That is the
    distance in strides wherever all levels' anchors measure equally many strides, and the stride of a prior
    follows from the prior itself. The official anchor sides count one pixel more; these do not.

    Args:
        sides: (width, height) of an anchor, strides; the same on all levels.
        clip_border: whether decoded boxes are cut at the image's border where it is given.
    """

    def __init__(self, sides: tuple[float, float], clip_border: bool = True) -> None:
        super().__init__()
        self.sides = sides
        self.clip_border = clip_border

    @classmethod
    def of_anchors(cls, prior_generator: Any, clip_border: bool = True) -> 'PointDistanceCoder':
        """The coder for the anchors of mmdet's ``AnchorGenerator``.

        Raises:
            ValueError: for several anchors a location, or levels whose anchors measure different numbers of
                strides.
        """
        counts = prior_generator.num_base_priors
        if set(counts) != {1}:
            raise ValueError(
                "regression='point' measures boxes from one point a location, but the anchor generator puts "
                f'{max(counts)} anchors there: set one of ratios and scales_per_octave=1, or '
                "regression='box'"
            )
        sides = [
            ((anchor[2] - anchor[0]) / width, (anchor[3] - anchor[1]) / height)
            for [anchor], (width, height) in zip(
                (level.tolist() for level in prior_generator.base_anchors),
                prior_generator.strides,
                strict=True,
            )
        ]
        spread = max(abs(a / b - 1) for level in sides for a, b in zip(level, sides[0], strict=True))
        if spread > 1e-3:
            rounded = [tuple(round(side, 3) for side in level) for level in sides]
            raise ValueError(
                "regression='point' takes a level's stride from its anchors, whose sides must be the same "
                f'number of strides on all levels, got {rounded}: set octave_base_scale instead of sizes'
            )
        return cls(sides[0], clip_border)

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Distances of boxes from priors.

        Args:
            bboxes: [n, 4] xyxy, priors.
            gt_bboxes: [n, 4] xyxy.

        Returns:
            [n, 4] left, top, right, bottom, strides.
        """
        return bbox2distance(_centers(bboxes), gt_bboxes) / self._strides(bboxes)

    def decode(
        self, bboxes: Tensor, pred_bboxes: Tensor, max_shape: Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """Boxes at distances from priors.

        Args:
            bboxes: [n, 4] xyxy, priors.
            pred_bboxes: [n, 4] left, top, right, bottom, strides.
            max_shape: (height, width) of the image at whose border boxes are cut.

        Returns:
            [n, 4] xyxy, pixels.
        """
        border = max_shape if self.clip_border else None
        return distance2bbox(_centers(bboxes), pred_bboxes * self._strides(bboxes), border)

    def _strides(self, priors: Tensor) -> Tensor:
        """[n, 4]: the stride along x, y, x, y."""
        sides = priors[:, 2:] - priors[:, :2]
        strides = torch.stack([sides[:, 0] / self.sides[0], sides[:, 1] / self.sides[1]], 1)
        return strides.repeat(1, 2)


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
