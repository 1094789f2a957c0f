"""Predictors in the manner of segment_anything; the stand-in's layers are those of transformers' SAM."""

import functools
import sys
import types

import numpy as np
import pytest
import tiny_predictor
import torch
from sam_oracle import assert_same, picture, prompts
from tiny_predictor import SamPredictor, TinySam

from atss_ext.vlsam.protocols import Segmenter, VlsamError
from atss_ext.vlsam.segmenter import PredictorSegmenter, TransformersSegmenter

BOXES = torch.tensor([[3.0, 5, 60, 70], [40, 20, 85, 80], [0, 0, 90, 90]])


@functools.cache
def model() -> TinySam:
    return TinySam().double()


def both() -> tuple[PredictorSegmenter, TransformersSegmenter]:
    """The same model as a predictor and through transformers."""
    return PredictorSegmenter(SamPredictor(model())), TransformersSegmenter(model().sam, model().processor)


@pytest.mark.parametrize('shape', [(96, 154), (161, 90), (128, 128), (37, 301), (3, 5)], ids=str)
@pytest.mark.parametrize('multimask', [True, False])
def test_points_boxes_and_mask_prompts(shape, multimask):
    ours, expected = both()
    image = picture(*shape)
    embedding, other = ours.embed(image), expected.embed(image)
    assert embedding.size == shape
    points, labels = prompts(3, *shape)
    first = expected.segment(other, points, labels, multimask=multimask)
    nothing = torch.zeros(3, 0, 2), torch.zeros(3, 0, dtype=torch.int64)
    for arguments in (
        (points, labels),
        (points, labels, first.mask_logits),
        (points, labels, None, BOXES),
        (points, labels, first.mask_logits, BOXES),
        (*nothing, None, BOXES),
    ):
        found = ours.segment(embedding, *arguments, multimask=multimask)
        assert_same(found, expected.segment(other, *arguments, multimask=multimask))


def test_as_the_predictor_itself():
    """One object after the other, by the predictor's own upsampling of all its proposals."""
    ours, _ = both()
    image = picture(96, 154)
    points, labels = prompts(4, 96, 154)
    found = ours.segment(ours.embed(image), points, labels)
    predictor = SamPredictor(model())
    predictor.set_image(image)
    for o in range(4):
        coords = predictor.transform.apply_coords_torch(points[o : o + 1], (96, 154))
        masks, ious, logits = predictor.predict_torch(coords, labels[o : o + 1])
        best = ious[0].tolist().index(max(ious[0].tolist()))
        assert torch.equal(found.masks[o], masks[0, best])
        torch.testing.assert_close(found.ious[o], ious[0, best].clamp(0, 1).float())
        torch.testing.assert_close(found.mask_logits[o], logits[0, best].float())


def test_images_in_any_order():
    """Though the predictor itself knows only the last; what it knew besides (HQ-SAM) is put back, too."""
    ours, expected = both()
    images = [picture(96, 154, 1), picture(161, 90, 2)]
    embeddings = []
    for number, image in enumerate(images):
        ours.predictor.interm_features = [number]
        embeddings.append(ours.embed(image))
    for number in (0, 1, 0, 1):
        points, labels = prompts(3, *images[number].shape[:2], seed=number)
        found = ours.segment(embeddings[number], points, labels)
        assert_same(found, expected.segment(expected.embed(images[number]), points, labels))
        assert ours.predictor.interm_features == [number]
        assert tuple(ours.predictor.original_size) == images[number].shape[:2]


def test_many_objects_in_few_calls():
    """Padding is taken out; the batch makes no difference."""
    ours, expected = both()
    ours.objects_per_call = 4
    points = torch.rand(9, 2, 2, generator=torch.Generator().manual_seed(0)) * 90
    labels = torch.tensor([[1, 0], [1, -10], [1, 0]]).repeat(3, 1)
    embedding = ours.embed(picture(96, 154))
    found = ours.segment(embedding, points, labels)
    assert ours.predictor.calls == 3  # six objects with two points in two, three with one in one
    assert_same(found, expected.segment(expected.embed(picture(96, 154)), points, labels))


def test_no_objects():
    ours, _ = both()
    found = ours.segment(ours.embed(picture(96, 154)), torch.zeros(0, 2, 2), torch.zeros(0, 2))
    assert [tuple(field.shape) for field in found] == [(0, 96, 154), (0,), (0, 32, 32)]


def test_it_is_a_segmenter_that_can_be_moved():
    ours = PredictorSegmenter(SamPredictor(TinySam()))
    assert isinstance(ours, Segmenter)
    assert ours.to('meta') is ours
    assert ours.device == torch.device('meta')


def test_bad_input():
    ours, _ = both()
    with pytest.raises(VlsamError, match='an image of 300 x 1 pixels is too thin'):
        ours.embed(picture(1, 300))
    with pytest.raises(VlsamError, match='uint8'):
        ours.embed(np.zeros((4, 4, 3)))
    with pytest.raises(VlsamError, match='labels holds 5'):
        ours.segment(ours.embed(picture(8, 8)), torch.zeros(1, 1, 2), torch.tensor([[5]]))


@pytest.fixture
def package(monkeypatch) -> types.ModuleType:
    """The stand-in under the name of a package that is looked for."""
    monkeypatch.setitem(sys.modules, 'mobile_sam', tiny_predictor)
    return tiny_predictor


def test_built_from_a_package(package, tmp_path):
    """With the weights of the file, not those it was built with."""
    trained = TinySam()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.25)
    torch.save(trained.state_dict(), tmp_path / 'mobile_sam.pt')
    ours = PredictorSegmenter(
        package='mobile_sam', model_type='tiny', checkpoint=tmp_path / 'mobile_sam.pt', device='cpu'
    )
    expected = TransformersSegmenter(trained.sam, trained.processor)
    points, labels = prompts(3, 96, 154)
    found = ours.segment(ours.embed(picture(96, 154)), points, labels)
    torch.testing.assert_close(
        found.ious, expected.segment(expected.embed(picture(96, 154)), points, labels).ious
    )
    assert not ours.predictor.model.training


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


def test_checkpoints_are_not_executed(package, tmp_path):
    torch.save({'weight': Bomb(tmp_path / 'trace')}, tmp_path / 'bad.pt')
    with pytest.raises(VlsamError, match=r'bad\.pt is damaged, or holds more than tensors'):
        PredictorSegmenter(package='mobile_sam', model_type='tiny', checkpoint=tmp_path / 'bad.pt')
    assert not (tmp_path / 'trace').exists()


def test_checkpoints_that_are_none(package, tmp_path):
    def build(name: str) -> None:
        PredictorSegmenter(package='mobile_sam', model_type='tiny', checkpoint=tmp_path / name)

    with pytest.raises(VlsamError, match=r'nowhere\.pt cannot be read \(No such file'):
        build('nowhere.pt')
    (tmp_path / 'text.pt').write_text('hello')
    with pytest.raises(VlsamError, match=r'text\.pt is damaged'):
        build('text.pt')
    torch.save([torch.ones(1)], tmp_path / 'list.pt')
    with pytest.raises(VlsamError, match=r'list\.pt is no state dict'):
        build('list.pt')
    torch.save({'weight': torch.ones(1)}, tmp_path / 'other.pt')
    with pytest.raises(VlsamError, match=r'other\.pt does not fit mobile_sam tiny \(.*Missing key') as caught:
        build('other.pt')
    assert '\n' not in str(caught.value)


def test_packages_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'mobile_sam', None)
    with pytest.raises(VlsamError, match=r'mobile_sam cannot be imported .*; install it from github'):
        PredictorSegmenter(package='mobile_sam', model_type='vit_t', checkpoint=tmp_path / 'x.pt')


def test_only_known_packages_are_imported(package, tmp_path, monkeypatch):
    """Not whatever a config names."""
    (tmp_path / 'evil_sam.py').write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="package is 'evil_sam'; take one of segment_anything, "):
        PredictorSegmenter(package='evil_sam', model_type='tiny', checkpoint='x.pt')
    assert 'evil_sam' not in sys.modules
    with pytest.raises(ValueError, match="model_type is 'huge'; take one that mobile_sam has: tiny"):
        PredictorSegmenter(package='mobile_sam', model_type='huge', checkpoint='x.pt')


BAD_ARGUMENTS = {
    'nothing': ({}, 'not neither'),
    'both': ({'predictor': 1, 'package': 'mobile_sam'}, 'not both'),
    'no checkpoint': ({'package': 'mobile_sam', 'model_type': 'tiny'}, 'needs model_type and checkpoint'),
    'no predictor': ({'predictor': 'vit_h'}, 'predictor, a str, has no set_image'),
    'no transform': (
        {'predictor': types.SimpleNamespace(set_image=len, predict_torch=len)},
        'SimpleNamespace, has no transform.apply_coords_torch',
    ),
    'no objects': ({'predictor': 1, 'objects_per_call': 0}, 'objects_per_call is 0'),
}


@pytest.mark.parametrize('name', BAD_ARGUMENTS)
def test_bad_arguments(name):
    arguments, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        PredictorSegmenter(**arguments)
