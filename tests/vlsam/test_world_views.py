"""What the small models are shown: drawn once, whole, mirrored or enlarged, each pixel with its owner."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atss_ext.vlsam.world.scenes import scene_of

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import scene_cache
import scene_views


@pytest.fixture
def view():
    """A picture of 16 x 32 pixels with object 1 at the left and object 2 at the lower right."""
    owners = np.zeros((16, 32), np.uint8)
    owners[0:8, 0:12] = 1
    owners[8:10, 0:8] = 1
    owners[9:12, 24:28] = 2
    image = np.arange(16 * 32 * 3, dtype=np.uint32).reshape(16, 32, 3).astype(np.uint8)
    return scene_views.whole_view(image, owners, np.array([7, 4, 0], np.uint8))


def test_a_cache_is_drawn_once_and_read_again(tmp_path):
    calls = []
    for _ in range(2):
        found = scene_cache.cached_scenes(tmp_path / 'scenes', 5, progress=lambda *done: calls.append(done))
    assert calls == [(5, 5)]
    scene = scene_of('train', 4)
    np.testing.assert_array_equal(found.images[4], scene.image)
    for number, mask in enumerate(scene.masks, 1):
        np.testing.assert_array_equal(found.owners[4] == number, mask)
    np.testing.assert_array_equal(found.owners[4] == 0, ~scene.masks.any(axis=0))
    assert found.categories[4].tolist() == scene.category_ids.tolist() + [0] * (3 - len(scene.boxes))
    assert len(scene_cache.cached_scenes(tmp_path / 'scenes', 6).images) == 6


def test_another_process_draws_the_same():
    one, two = scene_cache.draw_scenes(70), scene_cache.draw_scenes(70, workers=1)
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_whole_view_has_the_boxes_of_the_scene():
    for index in range(20):
        scene = scene_of('rules', index)
        view = scene_views.whole_view(
            scene.image, scene_cache.owner_pixels(scene), scene.category_ids.astype(np.uint8)
        )
        np.testing.assert_array_equal(view.boxes, scene.boxes)
        assert view.categories.tolist() == scene.category_ids.tolist()


def test_a_mirror_image_swaps_left_and_right(view):
    mirrored = scene_views.whole_view(view.image, view.owners, view.categories, mirror=True)
    assert mirrored.boxes.tolist() == [[20, 0, 32, 10], [4, 9, 8, 12]]
    np.testing.assert_array_equal(mirrored.image[:, 0], view.image[:, 31])


def test_patches_belong_to_whom_they_show(view):
    # A full patch, half of the next, a quarter below; a fifth of a patch is the best that object 2 has.
    assert scene_views.patch_owners(view, 8).tolist() == [[1, 1, 0, 0], [255, 0, 0, 2]]


def test_a_part_names_what_it_shows_half_of_at_least(view):
    # Columns 8 to 24, rows 0 to 8: a quarter of object 1, nothing of object 2.
    part = scene_views.part_view(view, 8, 0)
    assert part.categories.tolist() == []
    assert part.boxes.shape == (0, 4)
    assert set(np.unique(part.owners)) == {0, scene_views.UNSURE}
    assert scene_views.patch_owners(part, 8).tolist() == [[255, 0, 0, 0], [255, 0, 0, 0]]
    # Columns 16 to 32, rows 4 to 12: all of object 2, which becomes the first.
    part = scene_views.part_view(view, 16, 4)
    assert part.categories.tolist() == [4]
    assert part.boxes.tolist() == [[16, 10, 24, 16]]


def test_a_part_is_enlarged_as_the_processor_enlarges_a_corner_view():
    from atss_ext.vlsam.world.processor import build_processor

    scene = scene_of('rules', 1)
    view = scene_views.whole_view(
        scene.image, scene_cache.owner_pixels(scene), scene.category_ids.astype(np.uint8)
    )
    part = scene_views.part_view(view, 32, 0)
    processor = build_processor().image_processor
    corner = np.ascontiguousarray(scene.image[:32, 32:])
    seen = processor(corner, return_tensors='np')['pixel_values'][0].transpose(1, 2, 0)
    # Interpolation rounds to whole levels in one of the two ways, 2 / 255 of the processor's -1 .. 1.
    np.testing.assert_allclose(part.image / 127.5 - 1, seen, atol=1.01 * 2 / 255)
    enlarged = np.asarray(Image.fromarray(corner).resize((64, 64), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(part.image, enlarged)
