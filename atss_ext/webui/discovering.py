"""Tab 2: VL-SAM names and segments what is in an image, and shows where the model looked."""

import dataclasses
from typing import Any

import numpy as np

from atss_ext.errors import UserError
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.loading import load
from atss_ext.vlsam.pipeline import Pipeline
from atss_ext.vlsam.protocols import Image
from atss_ext.webui.pictures import picture_of_attention, picture_of_masks

QUICK, CORNERS, THOROUGH = 'Quick', 'Standard', 'Thorough'
EFFORTS = {
    QUICK: {'questions': 'single', 'corners': False},
    CORNERS: {'questions': 'single', 'corners': True},
    THOROUGH: {'questions': 'default', 'corners': True},
}
"""How much is asked: one question of the whole image; of its corners too; ten questions of all five."""

_LONGEST_QUESTION = 300


class Discoverer:
    """VL-SAM of a config.

    Args:
        config: path of a config of VL-SAM.
        device: where its models run; 'auto' takes a GPU where there is one.

    Raises:
        VlsamError: it is not one, or a model cannot be loaded.
    """

    def __init__(self, config: str, device: str = 'auto') -> None:
        self.loaded = load(config, device=device, keep_maps=True)

    def __call__(self, image: Image, effort: str, question: str = '', score_thr: float = 0.0) -> Detections:
        """Look at an image, RGB uint8 [H, W, 3].

        Args:
            image: the image.
            effort: one of :data:`EFFORTS`.
            question: asked instead of ours, where it is not empty.
            score_thr: detections below are left out.

        Raises:
            UserError: an effort that there is not, or a question that is too long.
            VlsamError: the image cannot be looked at.
        """
        if effort not in EFFORTS:
            raise UserError(f'effort {str(effort)[:80]!r} is none of {", ".join(EFFORTS)}; choose one')
        settings: dict[str, Any] = {**EFFORTS[effort], 'score_thr': float(score_thr)}
        asked = (question or '').strip()
        if len(asked) > _LONGEST_QUESTION:
            raise UserError(f'the question has {len(asked)} letters; ask in at most {_LONGEST_QUESTION}')
        if asked:
            settings['questions'] = [asked]
        options = dataclasses.replace(self.loaded.options, **settings)
        return Pipeline(self.loaded.vlm, self.loaded.segmenter, options)(image)


def by_name(found: Detections) -> dict[str, list[int]]:
    """Indices of the objects of each name, the names of the best first."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(found.names):
        groups.setdefault(name, []).append(index)
    return groups


def pictures_by_name(image: Image, found: Detections, most: int = 12) -> list[tuple[Image, str]]:
    """For each name two pictures with captions: the attention of its best object, and its objects' masks."""
    pictures: list[tuple[Image, str]] = []
    for name, indices in list(by_name(found).items())[:most]:
        kind = f'{len(indices)} masks' if len(indices) > 1 else 'mask'  # first, for captions may be cut
        if found.maps is not None:
            attention = np.asarray(found.maps[indices[0]], np.float32)
            pictures.append((picture_of_attention(image, attention), f'attention: {name}'))
        pictures.append((picture_of_masks(image, found, indices), f'{kind}: {name}'))
    return pictures


def rows_of(found: Detections) -> list[list[Any]]:
    """The table: name, score, share of the image that the mask covers in percent, and the box's corners."""
    whole = float(np.prod(found.size))
    rounded = np.round(found.boxes.astype(float), 1).tolist()
    return [
        [name, round(float(score), 3), round(100 * float(found.mask(index).sum()) / whole, 1), *box]
        for index, (name, score, box) in enumerate(zip(found.names, found.scores, rounded, strict=True))
    ]


def answers_of(found: Detections) -> list[list[str]]:
    """What the model was asked and said, a row a view and question."""
    return [[answer['view'], answer['question'], answer['text']] for answer in found.answers]
