"""What enters a segmenter: checked, and split into the calls of the decoder."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from atss_ext.vlsam.protocols import Image, VlsamError

PADDING = -10  # the label of a point that is none


class Prompts(NamedTuple):
    """What O objects are prompted with.

    Attributes:
        points: float32 [O, P, 2], (x, y) in pixels of the image.
        labels: int64 [O, P]: 1 on the object, 0 beside it, -10 no point.
        mask_logits: float32 [O, h, w], or None.
        boxes: float32 xyxy [O, 4] in pixels of the image, or None.
    """

    points: Tensor
    labels: Tensor
    mask_logits: Tensor | None
    boxes: Tensor | None

    def select(self, index: Tensor) -> 'Prompts':
        """The objects at ``index``, in its order."""
        return Prompts(
            self.points[index],
            self.labels[index],
            None if self.mask_logits is None else self.mask_logits[index],
            None if self.boxes is None else self.boxes[index],
        )


def check_image(image: Image, longest: int | None) -> Image:
    """The image as every library takes it: contiguous and writable, copied only where it is not.

    Args:
        image: RGB uint8 [H, W, 3].
        longest: pixels its longer side will have where it keeps its shape, None where it does not.

    Raises:
        VlsamError: it is no such image, has no pixels, or would have none on its shorter side.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        kind = type(image).__name__
        found = f'{image.dtype} {list(image.shape)}' if isinstance(image, np.ndarray) else kind
        raise VlsamError(f'a segmenter takes RGB images as uint8 [H, W, 3], not {found}; convert it first.')
    height, width = image.shape[:2]
    if not image.size:
        raise VlsamError(f'an image of {width} x {height} pixels shows nothing; leave it out.')
    if longest is not None and min(height, width) * longest / max(height, width) < 0.5:
        raise VlsamError(
            f'an image of {width} x {height} pixels is too thin: nothing is left of its shorter side once '
            f'its longer one has the {longest} pixels the segmenter looks at; crop it.'
        )
    return np.require(image, requirements=['C', 'W'])


def check_prompts(
    points: Tensor,
    labels: Tensor,
    mask_logits: Tensor | None,
    boxes: Tensor | None,
    mask_size: tuple[int, int],
    device: torch.device,
) -> Prompts:
    """The arguments of ``Segmenter.segment`` on one device.

    Args:
        points: see :class:`Prompts`.
        labels: see :class:`Prompts`.
        mask_logits: see :class:`Prompts`.
        boxes: see :class:`Prompts`.
        mask_size: (h, w) of the mask prompts the model takes.
        device: of the model.

    Raises:
        VlsamError: shapes that do not fit together, an unknown label, a coordinate that is not finite, or an
            object without a point and without a box.
    """
    count = len(points)
    expected = {
        'points': (points, (count, labels.shape[-1] if labels.ndim else 0, 2)),
        'labels': (labels, (count, points.shape[1] if points.ndim > 1 else 0)),
        'mask_logits': (mask_logits, (count, *mask_size)),
        'boxes': (boxes, (count, 4)),
    }
    for name, (part, shape) in expected.items():
        if part is not None and tuple(part.shape) != shape:
            raise VlsamError(f'{name} has the shape {list(part.shape)}; {count} objects need {list(shape)}.')
    prompts = Prompts(
        points.to(device, torch.float32),
        labels.to(device, torch.int64),
        None if mask_logits is None else mask_logits.to(device, torch.float32),
        None if boxes is None else boxes.to(device, torch.float32),
    )
    _check_values(prompts)
    return prompts


def _check_values(prompts: Prompts) -> None:
    """:func:`check_prompts` for what the tensors hold."""
    points, labels, _, boxes = prompts
    known = (labels == 0) | (labels == 1) | (labels == PADDING)
    if not bool(known.all()):
        raise VlsamError(
            f'labels holds {int(labels[~known][0])}; a label is 1 (on), 0 (beside) or -10 (no point).'
        )
    real = labels != PADDING
    if not bool(points[real].isfinite().all()) or (boxes is not None and not bool(boxes.isfinite().all())):
        raise VlsamError('a point or box has a coordinate that is NaN or infinite; leave its object out.')
    if boxes is None and not bool(real.any(1).all()):
        first = int((~real.any(1)).nonzero()[0])
        raise VlsamError(f'object {first} has neither a point nor a box; leave it out.')


def split(prompts: Prompts, most: int) -> Iterator[tuple[Tensor, Prompts]]:
    """Calls of the decoder: objects with as many points each, the padding taken out.

    Padding does not leave a decoder alone, whatever its documentation says: the token of a padded point is
    attended to like any other. Without it an object's mask does not depend on what else is in the batch.

    Args:
        prompts: of all O objects.
        most: objects a call.

    Yields:
        (which of the objects, their prompts); for O objects with as many points each and O <= ``most``, once.
    """
    real = prompts.labels != PADDING
    counts = real.sum(1)
    for count in counts.unique().tolist():
        for index in (counts == count).nonzero()[:, 0].split(most):
            part, keep = prompts.select(index), real[index]
            points = part.points[keep].view(len(index), count, 2)
            yield index, part._replace(points=points, labels=part.labels[keep].view(len(index), count))


def decode_in_parts(
    prompts: Prompts, most: int, decode: Callable[[Prompts], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Every object through the decoder, in as few calls as :func:`split` gives.

    Args:
        prompts: of O objects, at least one.
        most: objects a call.
        decode: n objects' prompts -> (mask logits [n, h, w], IoUs [n]).

    Returns:
        mask logits [O, h, w] and IoUs [O], in the order of the objects.
    """
    indices, logits, ious = [], [], []
    for index, part in split(prompts, most):
        found = decode(part)
        indices.append(index)
        logits.append(found[0])
        ious.append(found[1])
    back = torch.cat(indices).argsort()
    return torch.cat(logits)[back], torch.cat(ious)[back]
