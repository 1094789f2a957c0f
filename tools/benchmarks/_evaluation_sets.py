"""Annotation files and detections of the size of COCO val and LVIS val, made of random numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

HEIGHT, WIDTH = 480, 640


@dataclass(frozen=True)
class Synthetic:
    """An annotation file and its detections.

    Attributes:
        content: the file.
        images: ids [N], of N detections; ascending.
        categories: ids [N].
        boxes: xywh [N, 4], pixels.
        scores: [N], in steps of 0.001, so that there are ties.
    """

    content: dict[str, Any]
    images: NDArray[np.int64]
    categories: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def results(self, masks: bool = False) -> list[dict[str, Any]]:
        """A plain COCO result list; with masks every region is an octagon in its box."""
        columns = (self.images, self.categories, self.boxes, self.scores)
        keys = ('image_id', 'category_id', 'bbox', 'score')
        rows = [dict(zip(keys, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
        for row in rows if masks else ():
            row['segmentation'] = rle.frPyObjects(octagon(row.pop('bbox')), HEIGHT, WIDTH)[0]
        return rows


def octagon(box: list[float]) -> list[list[float]]:
    """A polygon in a box, xywh."""
    x, y, w, h = box
    ends = (x, x + w / 3, x + 2 * w / 3, x + w), (y, y + h / 3, y + 2 * h / 3, y + h)
    places = (1, 0), (2, 0), (3, 1), (3, 2), (2, 3), (1, 3), (0, 2), (0, 1)
    return [[ends[axis][place[axis]] for place in places for axis in (0, 1)]]


def synthetic(images: int, classes: int, objects: int, detections: int, federated: bool = False) -> Synthetic:
    """Make a set; the same numbers give the same set.

    Args:
        images: how many.
        classes: how many.
        objects: an image.
        detections: an image; a third are near an object and of its class.
        federated: add LVIS's lists and frequencies; a third of the other detections is of listed classes.
    """
    chance = np.random.default_rng(0)
    total = images * objects
    of_image = np.repeat(np.arange(1, images + 1), objects)
    category = chance.integers(1, classes + 1, total)
    boxes = _boxes(chance, total)
    near = chance.integers(0, objects, (images, detections)) + objects * np.arange(images)[:, None]
    near = near.reshape(-1)
    hit = chance.random(len(near)) < 1 / 3
    moved = boxes[near] + chance.normal(0, 4, (len(near), 4))
    found = np.where(hit[:, None], moved, _boxes(chance, len(near)))
    found[:, 2:] = np.maximum(found[:, 2:], 1)
    other = chance.integers(1, classes + 1, len(near))
    lists = chance.integers(1, classes + 1, (images, 6))
    if federated:
        listed = lists[np.repeat(np.arange(images), detections), chance.integers(0, 6, len(near))]
        other = np.where(chance.random(len(near)) < 1 / 3, listed, other)
    content = _content(images, classes, of_image, category, boxes, lists if federated else None)
    return Synthetic(
        content,
        np.repeat(np.arange(1, images + 1), detections),
        np.where(hit, category[near], other),
        found,
        np.round(chance.random(len(near)) * np.where(hit, 1.0, 0.5), 3),
    )


def _boxes(chance: np.random.Generator, count: int) -> NDArray[np.float64]:
    sizes = np.exp(chance.uniform(np.log(8), np.log(300), (count, 2)))
    corners = chance.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sizes)
    return np.concatenate([corners, sizes], axis=1)


def _content(
    images: int,
    classes: int,
    of_image: NDArray[np.int64],
    category: NDArray[np.int64],
    boxes: NDArray[np.float64],
    lists: NDArray[np.int64] | None,
) -> dict[str, Any]:
    pictures: list[dict[str, Any]] = [
        {'id': number, 'height': HEIGHT, 'width': WIDTH, 'file_name': f'{number}.jpg'}
        for number in range(1, images + 1)
    ]
    shown: dict[int, set[int]] = {}
    for image, name in zip(of_image.tolist(), category.tolist(), strict=True):
        shown.setdefault(image, set()).add(name)
    for picture, some in zip(pictures, [] if lists is None else lists.tolist(), strict=lists is not None):
        own = shown[picture['id']]
        picture['neg_category_ids'] = sorted(set(some) - own)
        picture['not_exhaustive_category_ids'] = sorted(own)[:1]
    rows = zip(of_image.tolist(), category.tolist(), boxes.tolist(), strict=True)
    # A crowd now and then, as in COCO; LVIS has none.
    annotations = [
        {'id': number, 'image_id': image, 'category_id': name, 'bbox': box, 'area': box[2] * box[3],
         'iscrowd': int(lists is None and number % 50 == 0), 'segmentation': octagon(box)}
        for number, (image, name, box) in enumerate(rows, 1)
    ]  # fmt: skip
    names = [{'id': n, 'name': f'class {n}', 'frequency': 'rcf'[n % 3]} for n in range(1, classes + 1)]
    return {'images': pictures, 'annotations': annotations, 'categories': names}
