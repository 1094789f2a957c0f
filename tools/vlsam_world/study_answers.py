"""What the study of prompts looks at: answers about views of scenes, read once, and what they name."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from map_quality import match_names
from numpy.typing import NDArray

from atss_ext.datasets.shapes import Scene
from atss_ext.vlsam.ensemble import View, views
from atss_ext.vlsam.names import Mention, find_names
from atss_ext.vlsam.protocols import Answer, Reading, VisionLanguageModel
from atss_ext.vlsam.world.scenes import reading_order

# An object is looked for in a view that holds at least this share of its visible pixels.
_SHOWN = 0.5


class Subject(NamedTuple):
    """One answer with true names.

    Attributes:
        scene: index of the scene.
        whole: about the whole scene, not a corner.
        question: index of the question.
        answer: what the model said.
        mentions: all names in it, M.
        reading: its attention.
        judged: pairs of a mention's index and its object's visible pixels, bool [H, W] of the view.
    """

    scene: int
    whole: bool
    question: int
    answer: Answer
    mentions: list[Mention]
    reading: Reading
    judged: list[tuple[int, NDArray[np.bool_]]]


def collect(
    vlm: VisionLanguageModel, scenes: Sequence[Scene], questions: Sequence[str], corners: int = 1
) -> list[Subject]:
    """Ask about every scene, and read every answer that names something true.

    Args:
        vlm: the model.
        scenes: of the world, all of one size.
        questions: asked about the whole of each scene.
        corners: how many of the questions, the first ones, are asked about the four corners too.
    """
    subjects: list[Subject] = []
    parts = views(*scenes[0].image.shape[:2]) if scenes else []
    for number, question in enumerate(questions):
        for view in parts if number < corners else parts[:1]:
            images = [_crop(scene.image, view) for scene in scenes]
            answers = vlm.answer(images, [question] * len(images), [0] * len(images))
            for index, (scene, answer) in enumerate(zip(scenes, answers, strict=True)):
                mentions = find_names(answer.text, finished=answer.finished)
                judged = judge(mentions, scene, view)
                if judged:
                    reading = vlm.read(answer)
                    whole = view.name == 'whole'
                    subjects.append(Subject(index, whole, number, answer, mentions, reading, judged))
    return subjects


def judge(mentions: Sequence[Mention], scene: Scene, view: View) -> list[tuple[int, NDArray[np.bool_]]]:
    """The mentions that are true in a view, each with the mask of its object there."""
    masks = [_crop(mask, view) for mask in scene.masks]
    shown = [index for index, mask in enumerate(masks) if mask.sum() >= _SHOWN * scene.masks[index].sum() > 0]
    boxes = np.array([_tight_box(masks[index]) for index in shown], np.float32).reshape(-1, 4)
    ordered = [shown[place] for place in reading_order(boxes)]
    pairs = match_names([mention.name for mention in mentions], [scene.names[index] for index in ordered])
    return [(said, masks[ordered[true]]) for said, true in pairs]


def _crop(pixels: NDArray, view: View) -> NDArray:
    x1, y1, x2, y2 = view.box
    return np.ascontiguousarray(pixels[y1:y2, x1:x2])


def _tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
