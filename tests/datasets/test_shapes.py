import colorsys
import dataclasses
import itertools

import numpy as np
import pytest

from atss_ext.datasets import shapes_drawing as drawing
from atss_ext.datasets.shapes import ShapesSpec, draw_scene

# Spelled out, so that the defaults may change without a word here.
WORLD = ShapesSpec(
    width=256,
    height=192,
    colours=('red', 'green', 'blue', 'yellow'),
    shapes=('circle', 'square', 'triangle', 'star'),
    min_objects=1,
    max_objects=10,
    min_size=8,
    max_size=150,
    empty_fraction=0.04,
    clutter=5,
    min_visible=0.5,
    rotation=30.0,
)

# Literal on purpose: the generator's own tables must not judge it.
HUES = {'red': 0, 'yellow': 52, 'green': 130, 'blue': 225}
FLAT = {'red': (214, 38, 40), 'green': (40, 160, 60), 'blue': (38, 82, 216), 'yellow': (236, 206, 36)}
# Area of the shape over the area of its upright box.
FILL = {'circle': np.pi / 4, 'square': 1.0, 'triangle': 0.5, 'star': 0.35}


@pytest.fixture(scope='module')
def scenes():
    return [draw_scene(WORLD, seed=5, index=index) for index in range(120)]


def eroded(mask):
    for axis in (0, 1):
        mask = mask & np.roll(mask, 1, axis=axis) & np.roll(mask, -1, axis=axis)
    return mask


def test_boxes_are_tight_on_masks_and_masks_never_overlap(scenes):
    for scene in scenes:
        assert (scene.masks.sum(axis=0) <= 1).all()
        for mask, box in zip(scene.masks, scene.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_sizes_span_the_promised_range(scenes):
    boxes = np.concatenate([scene.boxes for scene in scenes])
    longest = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert longest.min() == 8
    assert 120 < longest.max() <= 150
    # Log-uniform: a third of them within each third of the octaves, give or take.
    thirds = np.histogram(np.log(longest), bins=np.log([8, 21.2, 56.4, 151]))[0] / len(longest)
    assert (thirds > 0.2).all()


def test_some_images_are_empty_and_some_objects_are_half_hidden(scenes):
    empty = sum(len(scene.boxes) == 0 for scene in scenes)
    assert 1 <= empty <= 12  # 4 % of 120
    visible = np.concatenate([scene.visible for scene in scenes])
    assert visible.min() >= 0.5
    assert 0.15 < (visible < 0.9).mean() < 0.6
    counts = [len(scene.boxes) for scene in scenes]
    assert max(counts) == 10


def test_mean_colour_inside_each_mask_has_the_named_hue(scenes):
    for scene in scenes:
        for mask, name in zip(scene.masks, scene.names, strict=True):
            red, green, blue = scene.image[mask].mean(axis=0) / 255
            hue = colorsys.rgb_to_hsv(red, green, blue)[0] * 360
            off = {colour: abs((hue - centre + 180) % 360 - 180) for colour, centre in HUES.items()}
            assert min(off, key=off.get) == name.split()[0]


def test_masks_are_exactly_the_pixels_of_the_object_in_a_flat_world():
    spec = dataclasses.replace(WORLD, realism=0.0, clutter=0)
    for index in range(40):
        scene = draw_scene(spec, seed=1, index=index)
        for colour, rgb in FLAT.items():
            mine = [
                mask for mask, name in zip(scene.masks, scene.names, strict=True) if name.startswith(colour)
            ]
            union = np.any(mine, axis=0) if mine else np.zeros(scene.image.shape[:2], dtype=bool)
            painted = (scene.image == rgb).all(axis=2)
            assert not (painted & ~union).any()  # no object without annotation, none under another colour
            inner = np.any([eroded(mask) for mask in mine], axis=0) if mine else union
            # A tip in front that covers less than half a pixel tints what lies behind.
            assert (~painted[inner]).sum() <= 0.003 * inner.sum()


@pytest.mark.parametrize('shape', FILL)
def test_a_name_means_its_shape(shape):
    spec = ShapesSpec(shapes=(shape,), rotation=0, min_visible=1.0, clutter=0, min_size=60, max_objects=2)
    fills = []
    for index in range(12):
        scene = draw_scene(spec, seed=0, index=index)
        sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
        fills += (scene.masks.sum(axis=(1, 2)) / sides.prod(axis=1)).tolist()
        assert all(name.endswith(shape) for name in scene.names)
    assert len(fills) > 10
    assert np.abs(np.array(fills) - FILL[shape]).max() < 0.04


def test_a_scene_depends_on_seed_and_index_alone():
    first = draw_scene(WORLD, seed=3, index=7)
    draw_scene(WORLD, seed=3, index=8)
    again = draw_scene(WORLD, seed=3, index=7)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (draw_scene(WORLD, seed=4, index=7), draw_scene(WORLD, seed=3, index=6)):
        assert not np.array_equal(first.image, other.image)


def test_small_clean_scenes_of_whole_objects():
    spec = ShapesSpec(
        width=64,
        height=64,
        min_objects=3,
        max_objects=3,
        min_size=12,
        max_size=22,
        empty_fraction=0,
        clutter=0,
        min_visible=1.0,
    )
    scenes = [draw_scene(spec, seed=0, index=index) for index in range(60)]
    assert {scene.image.shape for scene in scenes} == {(64, 64, 3)}
    assert sum(len(scene.names) == 3 for scene in scenes) >= 57  # now and then there is no room
    assert all((scene.visible == 1).all() for scene in scenes)
    longest = np.concatenate([(scene.boxes[:, 2:] - scene.boxes[:, :2]).max(axis=1) for scene in scenes])
    assert longest.min() >= 12
    assert longest.max() <= 22


def test_category_names_and_ids():
    spec = ShapesSpec(colours=('red', 'lime'), shapes=('ring', 'heart'), patterns=('plain', 'striped'))
    assert spec.category_names == (
        'red ring', 'red heart', 'lime ring', 'lime heart',
        'striped red ring', 'striped red heart', 'striped lime ring', 'striped lime heart',
    )  # fmt: skip
    for index in range(10):
        scene = draw_scene(spec, seed=0, index=index)
        assert scene.names == tuple(spec.category_names[number - 1] for number in scene.category_ids)


def test_there_are_more_categories_than_lvis_has():
    spec = ShapesSpec(
        colours=tuple(drawing.PALETTE),
        shapes=tuple(drawing.OUTLINES),
        patterns=drawing.PATTERNS,
        max_objects=30,
    )
    assert len(set(spec.category_names)) == 1440
    drawn = {name for index in range(20) for name in draw_scene(spec, seed=0, index=index).names}
    assert len(drawn) > 100


def test_skew_makes_early_categories_frequent():
    spec = dataclasses.replace(WORLD, skew=1.5, realism=0.0, clutter=0, max_size=20)
    ids = np.concatenate([draw_scene(spec, seed=0, index=index).category_ids for index in range(80)])
    counts = np.bincount(ids, minlength=17)[1:]
    weights = np.arange(1, 17) ** -1.5
    assert np.abs(counts / counts.sum() - weights / weights.sum()).max() < 0.08


def test_outlines_keep_their_size_and_differ_from_each_other():
    masks = {}
    for name, outline in drawing.OUTLINES.items():
        for size, angle in ((8, 0.3), (40, 1.1), (150, 2.0)):
            shape = drawing.rasterise(outline, size, angle).shape
            assert size - 1 <= max(shape) <= size
        mask = np.zeros((64, 64), dtype=bool)
        upright = drawing.rasterise(outline, 64, 0.0) >= 0.5
        top, left = (64 - upright.shape[0]) // 2, (64 - upright.shape[1]) // 2
        mask[top : top + upright.shape[0], left : left + upright.shape[1]] = upright
        masks[name] = mask
    for one, other in itertools.combinations(masks, 2):
        shared = (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum()
        assert shared < 0.95, (one, other)


def test_patterns_darken_part_of_the_surface():
    for pattern in drawing.PATTERNS:
        spec = ShapesSpec(
            colours=('yellow',),
            shapes=('square',),
            patterns=(pattern,),
            min_size=100,
            clutter=0,
            realism=0.0,
            empty_fraction=0,
            max_objects=1,
            min_visible=1.0,
        )
        # A large square does not always find room; the first that does will do.
        scene = next(s for s in (draw_scene(spec, seed=0, index=i) for i in range(20)) if s.names)
        bright = (scene.image == FLAT['yellow']).all(axis=2)[eroded(scene.masks[0])].mean()
        assert bright == 1.0 if pattern == 'plain' else 0.2 < bright < 0.9


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ({'colours': ('red', 'rde')}, "colours has the unknown name 'rde'"),
        ({'shapes': ()}, 'shapes must be a tuple of one or more different names, but is ()'),
        ({'shapes': ['circle']}, 'shapes must be a tuple'),
        ({'patterns': ('plain', 'plain')}, 'patterns must be a tuple of one or more different names'),
        ({'width': 8}, 'width must be an integer from 16 to 4096, but is 8'),
        ({'max_size': 500}, 'max_size must be an integer from 4 to 192, but is 500'),
        ({'min_size': 200}, 'min_size must be an integer from 4 to 150, but is 200'),
        ({'min_objects': 11}, 'min_objects must be an integer from 1 to 10, but is 11'),
        ({'empty_fraction': 1.5}, 'empty_fraction must be a number from 0 to 1, but is 1.5'),
        ({'min_visible': float('nan')}, 'min_visible must be a number from 0 to 1, but is nan'),
        ({'clutter': 2.0}, 'clutter must be an integer from 0 to 1000, but is 2.0'),
    ],
)
def test_a_spec_refuses_what_cannot_be_drawn(arguments, sentence):
    with pytest.raises(ValueError) as refusal:
        dataclasses.replace(WORLD, **arguments)
    assert str(refusal.value).startswith(sentence)
    assert '\n' not in str(refusal.value)


@pytest.mark.parametrize(('seed', 'index'), [(-1, 0), (0, -1), (1.5, 0)])
def test_negative_seeds_are_refused(seed, index):
    with pytest.raises(ValueError, match='must be an integer from 0'):
        draw_scene(ShapesSpec(), seed, index)


def test_specs_are_values():
    assert dataclasses.replace(WORLD, clutter=1) != WORLD
    assert len({WORLD, dataclasses.replace(WORLD, clutter=5)}) == 1
