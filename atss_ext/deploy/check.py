"""Whether an exported detector finds what mmdet's ``predict`` finds."""

import copy
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from numpy.typing import NDArray
from torch import nn

from atss_ext.errors import UserError, first_line

# Allowed in any case: a few last digits of a float32, of a coordinate (pixels, on images of up to 256) and of
# a score.
BOX_TOLERANCE = 1e-4
SCORE_TOLERANCE = 1e-5
_SIDE = 256
# No fixed number fits all detectors: what rounding makes of detections grows with the depth of the network
# and the size of its boxes, and deformable convolutions multiply it. So it is measured (:func:`rounding`).
# With onnxruntime a tiny ResNet-18, a tiny ResNet-50 with DCNv2 and the paper's ResNet-50 were 0.4 to 2.3
# times that off (20 images, 2e-5 to 1.3e-3 px); with one weight of the head wrong by 0.01, twelve times.
_ROUNDINGS = 8
_MOST = 100  # times what is allowed in any case: nobody would call it rounding
_REFUSED = 'no file was kept, as it would be wrong'


class Detections(NamedTuple):
    """Of one image, best first.

    Attributes:
        boxes: float32 [D, 4] xyxy, pixels of the image as it was given.
        scores: float32 [D].
        labels: int64 [D].
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Difference(NamedTuple):
    """How far an export is from PyTorch at most.

    Attributes:
        images: that were compared.
        detections: on them.
        box: pixels.
        score: of scores.
    """

    images: int
    detections: int
    box: float
    score: float


Detector = Callable[[NDArray[np.uint8]], Detections]


@torch.no_grad()
def predict(model: nn.Module, image: NDArray[np.uint8]) -> Detections:
    """mmdet's own detections, the reference.

    Args:
        model: the detector.
        image: [H, W, 3] BGR; it is not resized.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    shape = image.shape[:2]
    sample = DetDataSample(metainfo={'img_shape': shape, 'ori_shape': shape, 'scale_factor': (1.0, 1.0)})
    network: Any = model
    data = network.data_preprocessor({'inputs': [pixels], 'data_samples': [sample]})
    found = network.predict(data['inputs'], data['data_samples'], rescale=False)[0].pred_instances
    return Detections(found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy())


def check_export(
    exported: Detector, model: nn.Module, images: Sequence[NDArray[np.uint8]], classes: Sequence[str]
) -> Difference:
    """Compare an exported detector with its model.

    Args:
        exported: what was written, loaded again.
        model: the detector.
        images: [H, W, 3] BGR each.
        classes: names in the order of the labels.

    Raises:
        UserError: detections differ by more than rounding explains, there are none by which to tell, or the
            export does not run.
    """
    box = score = 0.0
    count = 0
    for number, image in enumerate(images):
        wanted = predict(model, image)
        place = f'check image {number + 1} ({image.shape[0]} x {image.shape[1]})'
        here = compare(_run(exported, image, place), wanted, place, len(classes))
        limits = _limits(image, rounding(model, image, wanted))
        if not (here[0] <= limits[0] and here[1] <= limits[1]):
            raise UserError(
                f'{place}: among {len(wanted.scores)} detections the export differs from PyTorch by up to '
                f'{here[0]:.3g} px and {here[1]:.3g} in score, where rounding explains {limits[0]:.3g} and '
                f'{limits[1]:.3g}; {_REFUSED}'
            )
        box, score, count = max(box, here[0]), max(score, here[1]), count + len(wanted.scores)
    if not count:
        raise UserError(
            f'the detector finds nothing on the {len(images)} check images, so that the export cannot '
            'be compared with it; name pictures of what it knows with --images, or lower '
            'model.test_cfg.score_thr'
        )
    return Difference(len(images), count, box, score)


def _run(exported: Detector, image: NDArray[np.uint8], place: str) -> Detections:
    try:
        return exported(image)
    except Exception as error:  # of the runtime's own kinds: a size that the exporter took for fixed
        raise UserError(
            f'{place}: the export cannot be run ({first_line(error)}); no file was kept, export for a larger '
            '--size, or without --dynamic'
        ) from error


def rounding(model: nn.Module, image: NDArray[np.uint8], wanted: Detections) -> tuple[float, float]:
    """How far detections go when each parameter is off by its last digit at most, the same way each time.

    Args:
        model: the detector.
        image: [H, W, 3] BGR.
        wanted: what it finds there.

    Returns:
        the greatest differences of boxes (pixels) and scores; zeros where other objects are found, which says
        nothing of the ones that stay.
    """
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (*other.parameters(), *other.buffers()):
            if value.is_floating_point():
                off = torch.rand(value.shape, generator=generator).mul_(2).sub_(1)
                value.mul_(1 + off.to(value) * torch.finfo(value.dtype).eps)
    try:
        return compare(predict(other, image), wanted, 'here', sys.maxsize)
    except UserError:
        return 0.0, 0.0


def _limits(image: NDArray[np.uint8], rounded: tuple[float, float]) -> tuple[float, float]:
    """Pixels and score by which detections may be off."""
    least = BOX_TOLERANCE * max(1.0, max(image.shape[:2]) / _SIDE), SCORE_TOLERANCE
    box, score = (
        min(max(one, _ROUNDINGS * off), _MOST * one) for one, off in zip(least, rounded, strict=True)
    )
    return box, score


def compare(found: Detections, wanted: Detections, place: str, classes: int) -> tuple[float, float]:
    """The greatest differences of boxes (pixels) and scores between two lists of detections.

    Those of nearly equal scores may stand in another order: each is compared with the nearest one of its
    label that is not taken yet.

    Raises:
        UserError: they are not equally many, or their labels differ.
    """
    if len(found.scores) != len(wanted.scores):
        raise UserError(
            f'{place}: the export finds {len(found.scores)} objects and PyTorch {len(wanted.scores)}; '
            f'{_REFUSED}'
        )
    beyond = [int(label) for label in found.labels if not 0 <= label < classes]
    if beyond:
        raise UserError(
            f'{place}: the export finds label {beyond[0]}, but there are {classes} classes; {_REFUSED}'
        )
    free = np.ones(len(found.scores), bool)
    box = score = 0.0
    for row in range(len(wanted.scores)):
        candidates = np.flatnonzero(free & (found.labels == wanted.labels[row]))
        if not len(candidates):
            raise UserError(
                f'{place}: PyTorch finds an object of label {wanted.labels[row]} that the export does not; '
                f'{_REFUSED}'
            )
        boxes = np.abs(found.boxes[candidates] - wanted.boxes[row]).max(1)
        scores = np.abs(found.scores[candidates] - wanted.scores[row])
        best = int(np.argmin(boxes / BOX_TOLERANCE + scores / SCORE_TOLERANCE))
        free[candidates[best]] = False
        box, score = np.maximum((box, score), (boxes[best], scores[best])).tolist()
    return box, score
