"""The small world: its sentences word for word, the same scenes for ever, splits apart."""

import hashlib

import numpy as np
import pytest

from atss_ext.datasets.shapes import Scene
from atss_ext.vlsam.world.scenes import SPEC, SPLITS, names_in_order, reading_order, scene_of, sentence

# Made once; another value means that trained weights and published figures belong to another world.
FIRST_SENTENCES = [
    'a red square, a green triangle',
    'a blue circle, a green square',
    'a red square, a yellow square, a red square',
    'a blue circle, a green square, a blue square',
    'a green triangle',
    'a red circle',
]
DIGEST = '9c4521dcc25488c697d2d32db23f13dab43bdd389a43861b4a0b3c285eb8b1ca'


def scene_with(boxes, names):
    count = len(boxes)
    return Scene(
        image=np.zeros((64, 64, 3), np.uint8),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        masks=np.zeros((count, 64, 64), bool),
        category_ids=np.ones(count, np.int64),
        names=tuple(names),
        visible=np.ones(count, np.float32),
    )


def test_names_go_from_left_to_right_by_the_centre_of_the_box():
    # The blue square begins further left than the red circle, but its middle lies further right.
    scene = scene_with(
        [[40, 0, 60, 20], [0, 30, 40, 60], [5, 5, 25, 25]], ['green star', 'blue square', 'red circle']
    )
    assert names_in_order(scene) == ('red circle', 'blue square', 'green star')


def test_of_two_with_one_middle_the_upper_comes_first():
    boxes = np.array([[0, 40, 20, 60], [5, 0, 15, 10]], np.float32)
    assert reading_order(boxes).tolist() == [1, 0]


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        ([], 'nothing'),
        (['red circle'], 'a red circle'),
        (['red circle', 'orange square', 'red circle'], 'a red circle, an orange square, a red circle'),
    ],
)
def test_sentence(names, expected):
    assert sentence(names) == expected


def test_the_first_scenes_never_change():
    assert [sentence(names_in_order(scene_of('train', i))) for i in range(6)] == FIRST_SENTENCES
    digest = hashlib.sha256()
    for split in SPLITS:
        for index in range(10):
            scene = scene_of(split, index)
            digest.update(sentence(names_in_order(scene)).encode())
            digest.update(scene.boxes.astype('<f4').tobytes())
            digest.update(scene.image.tobytes())
            digest.update(scene.masks.tobytes())
    assert digest.hexdigest() == DIGEST


def test_the_same_scene_has_the_same_pixels_and_splits_differ():
    again, once = scene_of('rules', 3), scene_of('rules', 3)
    np.testing.assert_array_equal(again.image, once.image)
    np.testing.assert_array_equal(again.masks, once.masks)
    images = {scene_of(split, 0).image.tobytes() for split in SPLITS}
    assert len(images) == len(SPLITS) == 4


def test_every_object_is_large_enough_for_the_patches():
    for index in range(100):
        boxes = scene_of('check', index).boxes
        sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        assert (sides >= SPEC.min_size).all()
        assert (sides <= SPEC.max_size).all()


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="must be one of train, check, rules, held-out, but is 'val'"):
        scene_of('val', 0)
