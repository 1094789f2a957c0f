"""SAM, SAM-HQ, SAM 2, EdgeTAM and SAM 3's tracker against their models and processors, called directly."""

import numpy as np
import pytest
import torch
from sam_oracle import assert_same, directly, picture, prompts, segmenter_of
from tiny_sams import FAMILIES, tiny_sam
from torch.utils._python_dispatch import TorchDispatchMode

from atss_ext.vlsam.protocols import Segmentation, Segmenter, VlsamError
from atss_ext.vlsam.segmenter import TransformersSegmenter, masks

SHAPES = [(96, 154), (161, 90), (128, 128), (37, 301), (3, 5)]  # height, width
PADDED = {'sam', 'sam_hq'}

every_family = pytest.mark.parametrize('family', FAMILIES)


def one_by_one(segmenter, embedding, points, labels, **others) -> Segmentation:
    parts = [
        segmenter.segment(
            embedding,
            points[o : o + 1],
            labels[o : o + 1],
            **{key: value[o : o + 1] if torch.is_tensor(value) else value for key, value in others.items()},
        )
        for o in range(len(points))
    ]
    return Segmentation(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


@every_family
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_as_the_model_itself(family, shape):
    """Several objects, both kinds of output, every shape of image."""
    segmenter, image = segmenter_of(family), picture(*shape)
    embedding = segmenter.embed(image)
    assert embedding.size == shape
    points, labels = prompts(5, *shape)
    for multimask in (True, False):
        found = segmenter.segment(embedding, points, labels, multimask=multimask)
        assert_same(found, directly(segmenter, image, points, labels, multimask=multimask))
        assert found.masks.dtype == torch.bool
        assert found.masks.shape == (5, *shape)


@every_family
def test_the_tiny_models_tell_things_apart(family):
    """What the tests of this file need: masks of objects, images and kinds of output differ."""
    segmenter = segmenter_of(family)
    embedding = segmenter.embed(picture(96, 154))
    points, labels = prompts(5, 96, 154)
    found = segmenter.segment(embedding, points, labels)
    area = found.masks.float().mean((1, 2))
    assert bool(((area > 0.05) & (area < 0.95)).all())
    assert len({mask.numpy().tobytes() for mask in found.masks}) == 5
    assert bool(((found.ious > 0) & (found.ious < 1)).all())
    single = segmenter.segment(embedding, points, labels, multimask=False)
    assert bool((single.masks != found.masks).flatten(1).any(1).all())
    other = segmenter.segment(segmenter.embed(picture(96, 154, seed=1)), points, labels)
    assert not torch.equal(other.masks, found.masks)


@every_family
@pytest.mark.parametrize('with_points', [False, True])
def test_boxes(family, with_points):
    segmenter, image = segmenter_of(family), picture(96, 154)
    boxes = torch.tensor([[3.0, 5, 60, 70], [80, 20, 150, 90], [0, 0, 154, 96]])
    points, labels = prompts(3, 96, 154)
    if with_points:
        found = segmenter.segment(segmenter.embed(image), points, labels, boxes=boxes)
        assert_same(found, directly(segmenter, image, points, labels, boxes))
    else:
        nothing = torch.zeros(3, 0, 2), torch.zeros(3, 0, dtype=torch.int64)
        found = segmenter.segment(segmenter.embed(image), *nothing, boxes=boxes)
        assert_same(found, directly(segmenter, image, boxes=boxes))


@every_family
def test_mask_prompts(family):
    """All objects in one call, against the model looking at the image anew for each of them."""
    segmenter, image = segmenter_of(family), picture(96, 154)
    embedding = segmenter.embed(image)
    points, labels = prompts(4, 96, 154)
    first = segmenter.segment(embedding, points, labels)
    found = segmenter.segment(embedding, points, labels, first.mask_logits)
    for o in range(4):
        part = slice(o, o + 1)
        expected = directly(segmenter, image, points[part], labels[part], mask_logits=first.mask_logits[part])
        assert_same(Segmentation(*(field[part] for field in found)), expected)
    assert_same(found, one_by_one(segmenter, embedding, points, labels, mask_logits=first.mask_logits))
    # They are not just ignored, nor handed to the wrong object.
    assert (found.mask_logits - first.mask_logits).abs().amax((1, 2)).min() > 1e-2
    shuffled = segmenter.segment(embedding, points, labels, first.mask_logits.roll(1, 0))
    assert (shuffled.mask_logits - found.mask_logits).abs().amax((1, 2)).min() > 1e-2


@every_family
@pytest.mark.parametrize('per_call', [1, 3, 64])
def test_many_objects_at_once_are_each_by_itself(family, per_call):
    segmenter = TransformersSegmenter(
        segmenter_of(family).model, segmenter_of(family).image_processor, objects_per_call=per_call
    )
    embedding = segmenter.embed(picture(96, 154))
    points, labels = prompts(7, 96, 154)
    found = segmenter.segment(embedding, points, labels)
    assert_same(found, one_by_one(segmenter, embedding, points, labels))
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    assert_same(
        segmenter.segment(embedding, points[order], labels[order]),
        Segmentation(*(field[order] for field in found)),
    )


@every_family
def test_padded_points_change_nothing(family):
    """Objects with one, two and three points in one batch, against each without padding."""
    segmenter, image = segmenter_of(family), picture(96, 154)
    embedding = segmenter.embed(image)
    points = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([154.0, 96])
    labels = torch.tensor([[1, 0, -10], [1, -10, -10], [-10, 1, 0], [1, 1, 0]])
    points[labels == -10] = float('nan')  # whatever stands there
    found = segmenter.segment(embedding, points, labels)
    for o in range(4):
        real = labels[o] != -10
        expected = directly(segmenter, image, points[o][real][None], labels[o][real][None])
        assert_same(Segmentation(*(field[o : o + 1] for field in found)), expected)


@every_family
def test_padding_is_not_harmless_to_the_models(family):
    """The reason for taking it out: a padded point moves the mask, whatever the label -10 promises."""
    segmenter, image = segmenter_of(family), picture(96, 154)
    points, labels = prompts(1, 96, 154)
    alone = directly(segmenter, image, points, labels)
    padded = directly(
        segmenter,
        image,
        torch.cat([points, torch.full((1, 1, 2), -10.0)], 1),
        torch.cat([labels, torch.tensor([[-10]])], 1),
    )
    assert (alone.mask_logits - padded.mask_logits).abs().max() > 1e-2


class Calls:
    """Counts the calls of a module, and keeps what it was given."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.arguments: list[dict] = []
        self.handle = module.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs) -> None:
        self.arguments.append(kwargs)

    def __enter__(self) -> 'Calls':
        return self

    def __exit__(self, *_) -> None:
        self.handle.remove()

    def __len__(self) -> int:
        return len(self.arguments)


@every_family
def test_an_image_is_embedded_once(family):
    """And many objects are decoded in one call."""
    segmenter = segmenter_of(family)
    points, labels = prompts(6, 96, 154)
    with Calls(segmenter.model.vision_encoder) as encoder, Calls(segmenter.model.mask_decoder) as decoder:
        embedding = segmenter.embed(picture(96, 154))
        first = segmenter.segment(embedding, points, labels)
        segmenter.segment(embedding, points, labels, first.mask_logits)
    assert (len(encoder), len(decoder)) == (1, 2)


@every_family
def test_embeddings_of_several_images_in_any_order(family):
    segmenter = segmenter_of(family)
    images = [picture(96, 154, 1), picture(161, 90, 2)]
    embeddings = [segmenter.embed(image) for image in images]
    for number in (1, 0, 1, 0):
        points, labels = prompts(3, *images[number].shape[:2], seed=number)
        expected = directly(segmenter, images[number], points, labels)
        assert_same(segmenter.segment(embeddings[number], points, labels), expected)


# The middle and a corner of an image of 100 x 50 pixels, where the model sees 128 x 128.
PLACES = {True: [[64.0, 32], [128, 64]], False: [[64.0, 64], [128, 128]]}


@every_family
def test_where_points_and_boxes_land(family):
    """Literal places; SAM keeps the shape of the image, SAM 2 and its kin stretch it."""
    segmenter = segmenter_of(family)
    points = torch.tensor([[[50.0, 25], [100, 50]]])
    boxes = torch.tensor([[50.0, 25, 100, 50]])
    with Calls(segmenter.model.prompt_encoder) as calls:
        segmenter.segment(segmenter.embed(picture(50, 100)), points, torch.tensor([[1, 0]]), boxes=boxes)
    (given,) = calls.arguments
    places = PLACES[family in PADDED]
    assert given['input_points'].tolist() == [[places]]
    assert given['input_labels'].tolist() == [[[1, 0]]]
    assert given['input_boxes'].tolist() == [[places[0] + places[1]]]


@every_family
def test_no_objects(family):
    segmenter = segmenter_of(family)
    embedding = segmenter.embed(picture(96, 154))
    nothing = torch.zeros(0, 2, 2), torch.zeros(0, 2, dtype=torch.int64)
    found = segmenter.segment(embedding, *nothing)
    assert found.masks.shape == (0, 96, 154)
    assert found.masks.dtype == torch.bool
    assert found.ious.shape == (0,)
    assert found.mask_logits.shape == (0, 32, 32)
    again = segmenter.segment(embedding, *nothing, found.mask_logits, torch.zeros(0, 4))
    assert again.masks.shape == (0, 96, 154)


@every_family
@pytest.mark.parametrize(('dtype', 'off'), [('float32', 1e-4), ('bfloat16', 0.25)])
def test_other_precisions(family, dtype, off):
    """What comes out is float32 and near what doubles give.

    For most objects: where two proposals are believed in alike, rounding may choose the other.
    """
    exact, coarse = segmenter_of(family), segmenter_of(family, dtype)
    assert coarse.model.dtype == getattr(torch, dtype)
    image = picture(96, 154)
    points, labels = prompts(9, 96, 154)
    first = exact.segment(exact.embed(image), points, labels)
    for mask_logits in (None, first.mask_logits):
        expected = exact.segment(exact.embed(image), points, labels, mask_logits)
        found = coarse.segment(coarse.embed(image), points, labels, mask_logits)
        assert found.mask_logits.dtype == found.ious.dtype == torch.float32
        apart = (found.mask_logits - expected.mask_logits).flatten(1).norm(dim=1)
        assert (apart / expected.mask_logits.flatten(1).norm(dim=1)).median() <= off
        assert (found.ious - expected.ious).abs().median() <= off


class LargestFloat(TorchDispatchMode):
    """The most elements a tensor of floats had that was made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize('family', ['sam', 'sam2'])
def test_floats_at_the_size_of_the_image_are_few(family, monkeypatch):
    """The bound holds whatever the number of objects, and does not change the masks."""
    segmenter = segmenter_of(family)
    embedding = segmenter.embed(picture(400, 600))
    points, labels = prompts(12, 400, 600)
    expected = segmenter.segment(embedding, points, labels)
    monkeypatch.setattr(masks, 'FLOAT_PIXELS', 500_000)  # two objects
    with LargestFloat() as largest:
        found = segmenter.segment(embedding, points, labels)
    assert largest.elements == 2 * 400 * 600
    assert torch.equal(found.masks, expected.masks)


def test_it_is_a_segmenter():
    assert isinstance(segmenter_of('sam'), Segmenter)


def test_the_model_is_put_into_evaluation_mode():
    model, processor = tiny_sam('sam2')
    TransformersSegmenter(model.train(), processor)
    assert not model.training


def test_it_can_be_moved():
    """To a device that computes nothing: only that it goes there is seen."""
    segmenter = TransformersSegmenter(*tiny_sam('sam'))
    assert segmenter.to('meta') is segmenter
    assert segmenter.device == torch.device('meta')
    assert TransformersSegmenter(*tiny_sam('sam'), device='meta').device.type == 'meta'


@every_family
def test_images_of_other_layouts_in_memory(family):
    """Flipped channels, read-only pixels and a cut-out are the same image."""
    segmenter, image = segmenter_of(family), picture(96, 154)
    points, labels = prompts(2, 96, 154)
    expected = segmenter.segment(segmenter.embed(image), points, labels)
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    frozen = image.copy()
    frozen.flags.writeable = False
    cut = np.pad(image, ((7, 3), (2, 9), (0, 0)))[7:-3, 2:-9]
    for same in (flipped, frozen, cut):
        assert_same(segmenter.segment(segmenter.embed(same), points, labels), expected)


BAD_IMAGES = {
    'grey': (np.zeros((4, 5), np.uint8), r'uint8 \[4, 5\]'),
    'alpha': (np.zeros((4, 5, 4), np.uint8), r'uint8 \[4, 5, 4\]'),
    'float': (np.zeros((4, 5, 3), np.float32), r'float32 \[4, 5, 3\]'),
    'a list': ([[1, 2, 3]], 'not list'),
    'empty': (np.zeros((0, 5, 3), np.uint8), '5 x 0 pixels shows nothing'),
}


@pytest.mark.parametrize('name', BAD_IMAGES)
def test_bad_images(name):
    image, message = BAD_IMAGES[name]
    with pytest.raises(VlsamError, match=message):
        segmenter_of('sam').embed(image)


def test_images_without_extent():
    """A line vanishes where the shape is kept (SAM), and is stretched elsewhere; a single pixel is fine."""
    point, label = torch.tensor([[[0.0, 0]]]), torch.tensor([[1]])
    with pytest.raises(VlsamError, match='an image of 300 x 1 pixels is too thin'):
        segmenter_of('sam').embed(picture(1, 300))
    for family, shape in (('sam', (1, 1)), ('sam', (1, 256)), ('sam2', (1, 300)), ('sam2', (1, 1))):
        segmenter, image = segmenter_of(family), picture(*shape)
        found = segmenter.segment(segmenter.embed(image), point, label)
        assert_same(found, directly(segmenter, image, point, label))


POINTS, LABELS = torch.ones(2, 2, 2), torch.tensor([[1, 0], [1, 0]])
BAD_PROMPTS = {
    'labels of other objects': (POINTS, LABELS[:1], {}, r'labels has the shape \[1, 2\]'),
    'points in space': (torch.ones(2, 2, 3), LABELS, {}, r'points has the shape \[2, 2, 3\]; 2 objects need'),
    'one mask prompt': (POINTS, LABELS, {'mask_logits': torch.ones(1, 32, 32)}, 'mask_logits has the shape'),
    'other mask prompts': (POINTS, LABELS, {'mask_logits': torch.ones(2, 8, 8)}, r'need \[2, 32, 32\]'),
    'one box': (POINTS, LABELS, {'boxes': torch.ones(1, 4)}, r'boxes has the shape \[1, 4\]'),
    'an unknown label': (POINTS, LABELS * 3, {}, 'labels holds 3; a label is 1'),
    'no number': (POINTS * float('nan'), LABELS, {}, 'NaN or infinite'),
    'no number in a box': (POINTS, LABELS, {'boxes': torch.full((2, 4), float('inf'))}, 'NaN or infinite'),
    'nothing': (POINTS, torch.tensor([[1, 0], [-10, -10]]), {}, 'object 1 has neither a point nor a box'),
}


@pytest.mark.parametrize('name', BAD_PROMPTS)
def test_bad_prompts(name):
    points, labels, others, message = BAD_PROMPTS[name]
    segmenter = segmenter_of('sam')
    with pytest.raises(VlsamError, match=message) as caught:
        segmenter.segment(segmenter.embed(picture(20, 20)), points, labels, **others)
    assert '\n' not in str(caught.value)
