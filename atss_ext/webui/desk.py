"""What stands behind the page's buttons: plain values in, plain values out, no gradio."""

import os
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from atss_ext.datasets.shapes import Scene, ShapesSpec, draw_scene
from atss_ext.errors import UserError
from atss_ext.vlsam.export import to_coco
from atss_ext.vlsam.protocols import Image
from atss_ext.vlsam.world import scene_of
from atss_ext.webui import assigning, detecting, discovering
from atss_ext.webui.offer import Offer, called, pick
from atss_ext.webui.outbox import Outbox
from atss_ext.webui.pictures import picture_of_boxes, picture_of_found
from atss_ext.webui.uploads import Limits, check_size, read_upload

EXAMPLES = 50
_EXAMPLE_SEED = 11


class Detected(NamedTuple):
    """What tab 1 shows."""

    sentence: str
    picture: Image
    rows: list[list[Any]]
    file: str


class Discovered(NamedTuple):
    """What tab 2 shows; ``pictures`` are (image, caption)."""

    sentence: str
    picture: Image
    pictures: list[tuple[Image, str]]
    rows: list[list[Any]]
    answers: list[list[str]]
    file: str


class Assigned(NamedTuple):
    """What tab 3 shows; ``pictures`` are a heading and (image, caption)s a config, ``file`` all as one."""

    sentence: str
    pictures: list[tuple[str, list[tuple[Image, str]]]]
    head: list[str]
    rows: list[list[Any]]
    file: str


class Desk:
    """Does what the page asks for; keeps the models that were used last.

    Args:
        offer: what may be chosen.
        limits: of uploads.
        device: where models run; 'auto' takes a GPU where there is one.
    """

    def __init__(self, offer: Offer, limits: Limits | None = None, device: str = 'auto') -> None:
        self.offer, self.limits, self.outbox = offer, limits or Limits(), Outbox()
        self._device = device
        self._detector = lru_cache(maxsize=2)(self._load_detector)
        self._discoverer = lru_cache(maxsize=1)(lambda config: discovering.Discoverer(config, device))

    def detect(
        self, upload: str | None, config: str | None, checkpoint: str | None, score_thr: float
    ) -> Detected:
        """Tab 1.

        Args:
            upload: path of the image that was sent.
            config: a name of the offer.
            checkpoint: a name of the offer.
            score_thr: detections below are left out.

        Raises:
            UserError: a choice, the upload or the weights are refused.
        """
        image = read_upload(upload, self.limits)
        path = pick('config', self.offer.detectors, config)
        weights = pick('checkpoint', self.offer.checkpoints, checkpoint)
        score_thr = _share(score_thr)
        with called(path, str(config)), called(weights, str(checkpoint)):
            found = self._detector(path, weights, _written(weights))(image, score_thr)
        place = self.outbox.place(f'{_stem(upload)}.results.json')
        place.write_text(detecting.coco_results(found))
        picture = picture_of_boxes(image, found.boxes, found.names, found.scores)
        return Detected(_summary(found.names, score_thr), picture, detecting.rows_of(found), str(place))

    def discover(
        self, upload: str | None, config: str | None, effort: str, question: str, score_thr: float
    ) -> Discovered:
        """Tab 2.

        Args:
            upload: path of the image that was sent.
            config: a name of the offer.
            effort: one of :data:`discovering.EFFORTS`.
            question: asked instead of ours, where it is not empty.
            score_thr: detections below are left out.

        Raises:
            UserError: a choice, the question or the upload is refused.
            VlsamError: a model cannot be loaded, or the image cannot be looked at.
        """
        image = read_upload(upload, self.limits)
        path = pick('config', self.offer.discoverers, config)
        score_thr = _share(score_thr)
        with called(path, str(config)):
            found = self._discoverer(path)(image, effort, question, score_thr)
        place = self.outbox.place(f'{_stem(upload)}.coco.json')
        to_coco([(Path(str(upload)).name, found)], place)
        return Discovered(
            _summary(found.names, score_thr),
            picture_of_found(image, found),
            discovering.pictures_by_name(image, found),
            discovering.rows_of(found),
            discovering.answers_of(found),
            str(place),
        )

    def assign(
        self, upload: str | None, boxes: str, ann_file: str | None, first: str | None, second: str | None
    ) -> Assigned:
        """Tab 3.

        Args:
            upload: path of the image that was sent.
            boxes: lines ``x1 y1 x2 y2 name``; not looked at where ``ann_file`` is given.
            ann_file: path of the COCO json that was sent.
            first: a name of the offer.
            second: another, to compare with; None or empty compares nothing.

        Raises:
            UserError: a choice, the upload or the boxes are refused.
            AssignmentError: a config has no anchors or no assigner.
            DataError: the boxes of the json cannot be used.
        """
        image = read_upload(upload, self.limits)
        names = list(dict.fromkeys(name for name in (first, second or first) if name))
        configs = [(name, pick('config', self.offer.assigners, name)) for name in names or ['']]
        size = image.shape[:2]
        if ann_file:
            check_size(ann_file, self.limits)
            gts = assigning.gts_from_coco(ann_file, Path(str(upload)).name, size)
        else:
            gts = assigning.gts_from_text(boxes, size)
        shown = assigning.explain_image(image, gts, configs)
        place = self.outbox.place(f'{_stem(upload)}.assignment.png')
        pictures = assigning.draw(place, shown)
        sentence = assigning.verdict(shown, len(gts['annotations']))
        return Assigned(sentence, pictures, *assigning.table(shown), str(place))

    def example(self, number: int) -> tuple[str, str]:
        """A scene of the embedded world: path of its picture, and its boxes as lines of tab 3."""
        return self._drawn(draw_scene(ShapesSpec(), _EXAMPLE_SEED, number % EXAMPLES), number)

    def small_example(self, number: int) -> str:
        """A scene of the small world that the shipped models of VL-SAM know: path of its picture."""
        return self._drawn(scene_of('held-out', number % EXAMPLES), number)[0]

    def _drawn(self, scene: Scene, number: int) -> tuple[str, str]:
        place = self.outbox.place(f'example_{number % EXAMPLES}.png')
        cv2.imwrite(str(place), np.ascontiguousarray(scene.image[..., ::-1]))
        boxes = zip(scene.boxes.tolist(), scene.names, strict=True)
        return str(place), '\n'.join(' '.join([*(f'{side:g}' for side in box), name]) for box, name in boxes)

    def _load_detector(self, config: str, checkpoint: str, _: float) -> detecting.Detector:
        device = self._device
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        return detecting.Detector(config, checkpoint, device)


def _written(path: str) -> float:
    """When it was: weights that a training has replaced are read again."""
    try:
        return os.path.getmtime(path)
    except OSError as error:
        raise UserError(f'checkpoint {path} is there no more ({error.strerror}); choose another') from error


def _share(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f'the score threshold {str(value)[:40]} must be from 0 to 1')
    return float(value)


def _stem(upload: str | None) -> str:
    return Path(str(upload)).stem[:80] or 'image'


def _summary(names: list[str], score_thr: float) -> str:
    if not names and not score_thr:
        return 'Nothing was found, at any score.'
    if not names:
        return f'Nothing has a score of {score_thr:g} or more; a lower threshold may show more.'
    counts = ', '.join(f'{name} ({count})' for name, count in Counter(names).most_common(6))
    more = len(set(names)) - 6
    rest = f' and {more} more names' if more > 0 else ''
    found = f'{len(names)} object{"s" if len(names) > 1 else ""}'
    return f'{found} with a score of {score_thr:g} or more: {counts}{rest}.'
