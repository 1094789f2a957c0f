"""What every metric asks of its arguments and of a model's samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as rle

from atss_ext.datasets.checks import DataError
from atss_ext.datasets.segmentation import Size, segmentation_faults
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


def check_labels(labels: NDArray[np.int64], classes: Sequence[str], image: Any, metric: str) -> None:
    """Raise DataError for a label [N] beyond the classes."""
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        wrong = labels.max() if labels.max() >= len(classes) else labels.min()
        raise DataError(
            f'image {image} has the label {wrong}, but there are {len(classes)} classes; set classes of '
            f'{metric} to those the detector was trained on'
        )


def array(values: Any) -> NDArray[Any]:
    """A tensor or a list as an array on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def run_lengths(image: Any, found: Mapping[str, Any], size: Size | None = None) -> list[dict[str, Any]]:
    """The masks of N detections, bool [N, H, W] or run lengths already, as run lengths.

    Args:
        image: its id, for messages.
        found: the detections.
        size: height and width of the image, pixels; None compares run lengths with the size they state.

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
        return listed
    if len(masks) and size is not None and tuple(masks.shape[1:]) != tuple(size):
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
