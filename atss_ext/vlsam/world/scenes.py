"""What the small models see and what they are taught to say about it.

A scene of the world is ``scene_of(split, index)``; the splits have different seeds and so share no
scene. The small vision-language model answers every question with :func:`sentence`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atss_ext.datasets.shapes import Scene, ShapesSpec, draw_scene
from atss_ext.datasets.shapes_coco import split_seed
from atss_ext.vlsam.ensemble import DEFAULT_QUESTIONS

SEED = 20241
"""The world's chance; each split's seed is made from it and the split's name."""

SPLITS = ('train', 'check', 'rules', 'held-out')
"""To learn from; to look at while learning; to choose options on; to report figures on, and nothing else."""

SPEC = ShapesSpec(
    width=64,
    height=64,
    colours=('red', 'green', 'blue', 'yellow'),
    shapes=('circle', 'square', 'triangle'),
    min_objects=1,
    max_objects=3,
    min_size=14,
    max_size=30,
    empty_fraction=0.03,
    clutter=2,
    min_visible=0.8,
    realism=0.5,
)
"""Objects cover at least two 8 x 8 patches a side, or the picture could not prompt anything."""

NOTHING = 'nothing'
"""What is said about a scene without objects."""

QUESTIONS = (
    'List all objects in the image.',
    'Describe the image and list all objects.',
    'What objects are in this image?',
    'What can you see in the picture?',
    'Name every object you can see.',
    'Which things are visible in the scene?',
    'Describe the scene in detail and name all the objects.',
    'What is in the image?',
    'Please list every object in this picture.',
    'Identify all visible objects in the image.',
    'Give a list of the objects in the scene.',
    'Tell me what objects this picture shows.',
    *DEFAULT_QUESTIONS,
)
"""Phrasings the small model is trained with; those of the question ensemble are among them."""


def scene_of(split: str, index: int, spec: ShapesSpec = SPEC) -> Scene:
    """Scene ``index`` of a split of the world.

    Args:
        split: one of :data:`SPLITS`.
        index: from 0; each scene is independent of the others.
        spec: the world.

    Raises:
        ValueError: the split is unknown or the index negative.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {", ".join(SPLITS)}, but is {split!r}.')
    return draw_scene(spec, split_seed(SEED, split), index)


def reading_order(boxes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The order in which objects are named: from left to right by the centre of their box, then from the top.

    Args:
        boxes: xyxy [M, 4], pixels.

    Returns:
        int64 [M], the indices of the objects in order.
    """
    centres = boxes[:, :2] + boxes[:, 2:]
    return np.lexsort((centres[:, 1], centres[:, 0]))


def names_in_order(scene: Scene) -> tuple[str, ...]:
    """A scene's names, those of objects further left first."""
    return tuple(scene.names[i] for i in reading_order(scene.boxes))


def sentence(names: Sequence[str]) -> str:
    """The answer that lists ``names``: "a red circle, an orange square", or "nothing".

    Args:
        names: in the order of the sentence; a name may stand there twice.
    """
    if not names:
        return NOTHING
    return ', '.join(f'{"an" if name[:1] in tuple("aeiou") else "a"} {name}' for name in names)
