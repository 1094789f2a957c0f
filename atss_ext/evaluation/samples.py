"""What every metric asks of its arguments and of a model's samples."""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.datasets.checks import DataError
from atss_ext.datasets.segmentation import Size, segmentation_faults
from atss_ext.evaluation.annotations import compressed
from atss_ext.evaluation.boxes import xywh
from atss_ext.registry import DATASETS


def check_choice(name: str, given: str | Sequence[str], known: Sequence[str]) -> list[str]:
    """What was chosen, as a list; raises ValueError for nothing, or for something unknown."""
    chosen = [given] if isinstance(given, str) else list(given)
    if not chosen or set(chosen) - set(known):
        raise ValueError(f'{name} must be some of {", ".join(known)}, but is {given!r}.')
    return chosen


def classes_of(dataset: str) -> tuple[str, ...]:
    """The classes of a registered dataset, as 'mmdet.CocoDataset'; raises ValueError where it has none."""
    classes = getattr(DATASETS.get(dataset), 'METAINFO', {}).get('classes')
    if not classes:
        raise ValueError(f'classes must be names or a dataset that has classes, but is {dataset!r}.')
    return tuple(classes)


def check_image(image: Any, known: Any, ann_file: str) -> None:
    """Raise DataError where the file does not have a tested image.

    Args:
        image: its id.
        known: the file's, asked by ``in``.
        ann_file: the file.
    """
    if image not in known:
        raise DataError(
            f"image {image} was tested, but {ann_file} does not have it; name the dataset's file as the "
            "metric's ann_file"
        )


def check_once(images: Sequence[Any], ann_file: str) -> None:
    """Raise DataError where an image was tested twice."""
    if len(set(images)) < len(images):
        raise DataError(
            f'an image of {ann_file} was tested twice, which would count its detections twice; test each '
            'image once'
        )


def check_lengths(image: Any, **columns: Sized) -> None:
    """Raise DataError where the fields of an image's detections are not as many: some would be lost."""
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        said = ', '.join(f'{count} {name.replace("_", " ")}' for name, count in counts.items())
        raise DataError(f'image {image} has {said}, but every detection has one of each; correct the model')


def labels_of(found: Mapping[str, Any], classes: Sequence[str], image: Any, metric: str) -> NDArray[np.int64]:
    """The labels of N detections, [N].

    Args:
        found: the detections.
        classes: by label.
        image: its id, for messages.
        metric: whose ``classes`` they are, for messages.

    Raises:
        DataError: a label is beyond the classes.
    """
    labels = array(found['labels']).astype(np.int64).reshape(-1)
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        wrong = labels.max() if labels.max() >= len(classes) else labels.min()
        raise DataError(
            f'image {image} has the label {wrong}, but there are {len(classes)} classes; set classes of '
            f'{metric} to those the detector was trained on'
        )
    return labels


def boxes_of(found: Mapping[str, Any], image: Any) -> NDArray[np.float64]:
    """The boxes of N detections, xywh [N, 4]; raises DataError for other shapes, and what is not finite."""
    boxes = array(found['bboxes'])
    if boxes.size and boxes.shape[1:] != (4,):
        raise _other_shape(image, 'bboxes', boxes, '[N, 4]')
    return _finite(xywh(boxes), image)


def scores_of(found: Mapping[str, Any], key: str, image: Any) -> NDArray[np.float64]:
    """The ``scores`` or ``mask_scores`` of N detections, [N]; raises DataError as :func:`boxes_of`."""
    scores = array(found[key]).astype(np.float64)
    if scores.ndim != 1:
        raise _other_shape(image, key, scores, '[N]')
    return _finite(scores, image)


def _finite(values: NDArray[np.float64], image: Any) -> NDArray[np.float64]:
    if not np.isfinite(values).all():
        raise DataError(f'image {image} has a box or a score that is not finite; the model has diverged')
    return values


def _other_shape(image: Any, key: str, values: NDArray[Any], wanted: str) -> DataError:
    return DataError(
        f'image {image} has {key} of the shape {list(values.shape)}, but they are {wanted}; correct the model'
    )


def array(values: Any) -> NDArray[Any]:
    """A tensor or a list as an array on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def run_lengths(image: Any, found: Mapping[str, Any], size: Size) -> list[dict[str, Any]]:
    """The masks of N detections, bool [N, H, W], or N polygons or run lengths of either kind, compressed.

    Args:
        image: its id, for messages.
        found: the detections.
        size: height and width of the image, pixels.

    Raises:
        DataError: the model makes none, or they do not fit to the image.
    """
    if 'masks' not in found:
        raise DataError(f"image {image} has no masks, which metric='segm' needs; choose metric='bbox'")
    masks = found['masks']
    if not isinstance(masks, torch.Tensor | np.ndarray):
        listed = list(masks)
        for place, fault in segmentation_faults(listed, [size] * len(listed)):
            raise DataError(f'mask {place} of image {image} {fault.text}')
        return [compressed(one, size) for one in listed]
    if len(masks) and tuple(masks.shape[1:]) != tuple(size):
        raise other_size(image, masks.shape[1:], size)
    stack = np.asfortranarray(array(masks).astype(np.uint8).transpose(1, 2, 0))
    encoded: list[dict[str, Any]] = rle.encode(stack)
    return encoded


def other_size(image: Any, given: Sequence[int], size: Size) -> DataError:
    """The error of masks of another size (height and width, pixels) than their image."""
    return DataError(
        f'image {image} is {size[0]} high and {size[1]} wide, but its masks are {list(given)}; let the model '
        'rescale them to the original image, and name the annotations of these images'
    )
