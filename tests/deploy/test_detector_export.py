"""Exported files run without mmdet and find what mmdet's predict finds; what does not is not kept."""

import copy
import importlib.util
import json
import os
import re
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from tiny_detectors import (
    CLASSES,
    CONFIG,
    ROOT,
    SMALL,
    as_options,
    full_disk,
    scene,
    tiny_config,
    tiny_model,
    with_head,
)

from atss_ext.deploy import check as checking
from atss_ext.deploy import export as exporting
from atss_ext.deploy.check import Detections, check_export, compare, predict, rounding
from atss_ext.deploy.export import capture, load_onnx, load_torch_export, write_onnx, write_torch_export
from atss_ext.deploy.images import check_images
from atss_ext.errors import UserError

SIZE = (96, 128)
SIZES = (SIZE, (101, 75), (33, 190), (160, 128))


@pytest.fixture(scope='module')
def dynamic(official, tmp_path_factory):
    """ONNX and torch.export files of one capture, for images of any size."""
    folder = tmp_path_factory.mktemp('dynamic')
    program = capture(official[1], SIZE, dynamic=True)
    metadata = {'classes': json.dumps(CLASSES)}
    write_onnx(program, folder / 'model.onnx', metadata)
    write_torch_export(program, folder / 'model.pt2', metadata)
    return folder


def differences(found, wanted):
    """Greatest differences of boxes and scores, after sorting both by label and score."""
    first, second = (np.lexsort((-one.scores, one.labels)) for one in (found, wanted))
    np.testing.assert_array_equal(found.labels[first], wanted.labels[second])
    boxes = np.abs(found.boxes[first] - wanted.boxes[second]).max()
    return boxes, np.abs(found.scores[first] - wanted.scores[second]).max()


@pytest.mark.parametrize('name', ['model.onnx', 'model.pt2'])
def test_finds_what_mmdet_finds_on_images_of_any_size(dynamic, official, name):
    detect = {'model.onnx': load_onnx, 'model.pt2': load_torch_export}[name](dynamic / name)
    for size in SIZES:
        for index in range(3):
            image = scene(size, index)
            wanted = predict(official[1], image)
            assert len(wanted.scores) > 20
            boxes, scores = differences(detect(image), wanted)
            assert boxes < 1e-4
            assert scores < 1e-5


def test_onnx_file_is_whole_and_says_what_it_is(dynamic):
    model = onnx.load(dynamic / 'model.onnx')
    onnx.checker.check_model(model)
    assert not [one for one in model.graph.initializer if one.external_data]
    assert [one.op_type for one in model.graph.node].count('NonMaxSuppression') == 1
    session = onnxruntime.InferenceSession(dynamic / 'model.onnx')
    [image] = session.get_inputs()
    assert (image.name, image.type, image.shape[2]) == ('image', 'tensor(uint8)', 3)
    assert [one.name for one in session.get_outputs()] == ['boxes', 'scores', 'labels']
    assert json.loads(session.get_modelmeta().custom_metadata_map['classes']) == list(CLASSES)


def test_torch_export_file_says_what_it_is(dynamic):
    with zipfile.ZipFile(dynamic / 'model.pt2') as archive:
        [name] = [name for name in archive.namelist() if name.endswith('extra/metadata.json')]
        assert json.loads(json.loads(archive.read(name))['classes']) == list(CLASSES)


@pytest.mark.parametrize('kind', ['mmdet.FCOSHead', pytest.param('mmdet.RetinaHead', marks=pytest.mark.slow)])
def test_heads_of_mmdet_in_onnx(kind, tmp_path):
    model = tiny_model(with_head(kind))
    write_onnx(capture(model, SIZE), tmp_path / 'model.onnx', {})
    detect = load_onnx(tmp_path / 'model.onnx')
    for index in range(3):
        image = scene(SIZE, index)
        wanted = predict(model, image)
        assert len(wanted.scores) > 20
        boxes, scores = differences(detect(image), wanted)
        assert boxes < 1e-4
        assert scores < 1e-5


def test_nothing_found_is_no_error(official, dynamic, tmp_path):
    """No candidate reaches NMS: what is computed of none must be none."""
    model = onnx.load(dynamic / 'model.onnx')
    [bias] = [one for one in model.graph.initializer if one.name.endswith('atss_cls.bias')]
    bias.CopyFrom(numpy_helper.from_array(np.full(8, -30, np.float32), bias.name))
    onnx.save(model, tmp_path / 'blind.onnx')
    found = load_onnx(tmp_path / 'blind.onnx')(scene(SIZE, 0))
    assert [part.shape for part in found] == [(0, 4), (0,), (0,)]


def changed(dynamic, path, what):
    """A file in which one thing is wrong."""
    model = onnx.load(dynamic / 'model.onnx')
    if what == 'weight':
        [one] = [one for one in model.graph.initializer if one.name.endswith('reg_convs.0.conv.weight')]
        values = numpy_helper.to_array(one).copy()
        values[0, 0, 1, 1] += 0.01
        one.CopyFrom(numpy_helper.from_array(values, one.name))
    if what == 'threshold':
        [node] = [node for node in model.graph.node if node.op_type == 'NonMaxSuppression']
        [one] = [one for one in model.graph.initializer if one.name == node.input[3]]
        one.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(one), 0.5), one.name))
    onnx.save(model, path)
    return load_onnx(path)


def test_a_broken_export_is_detected(dynamic, official, tmp_path):
    model, images = official[1], [scene(SIZE, index) for index in range(2)]
    whole = check_export(load_onnx(dynamic / 'model.onnx'), model, images, CLASSES)
    assert (whole.images, whole.detections) == (2, 200)
    for what in ('weight', 'threshold'):
        detect = changed(dynamic, tmp_path / f'{what}.onnx', what)
        with pytest.raises(UserError, match=r'check image 1 \(96 x 128\).*no file was kept'):
            check_export(detect, model, images, CLASSES)
    with pytest.raises(UserError, match=r'the export finds label 7, but there are 7 classes'):
        check_export(load_onnx(dynamic / 'model.onnx'), model, images, CLASSES[:7])


@pytest.fixture(scope='module')
def deformable():
    """A detector that magnifies rounding: each DCNv2 looks where the layer before says, to the last digit."""
    dcn = {'type': 'DCNv2', 'deform_groups': 1, 'fallback_on_stride': False}
    options = {'depth': 50, 'dcn': dcn, 'stage_with_dcn': (False, True, True, True)}
    options = {f'model.backbone.{key}': value for key, value in options.items()}
    return tiny_model(tiny_config(**options, **{'model.neck.in_channels': [32, 64, 128, 256]}))


def other_sums(model):
    """The same network by other kernels of torch, which add in another order."""

    def detect(image):
        with torch.backends.mkldnn.flags(enabled=False):
            return predict(model, image)

    return detect


def wrong_weight(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bbox_head.reg_convs[0].conv.weight[0, 0, 1, 1] += 0.01
    return lambda image: predict(other, image)


def test_rounding_is_no_difference_and_a_wrong_weight_is(deformable, official):
    images = [scene(SIZE, index) for index in range(2)]
    done = check_export(other_sums(deformable), deformable, images, CLASSES)
    # More than ten last digits of any coordinate, which refused such detectors.
    assert 2e-4 < done.box < 5e-3
    assert 1e-5 < done.score < 5e-4
    for model, limit in ((deformable, 2e-2), (official[1], 5e-4)):
        with pytest.raises(UserError) as caught:
            check_export(wrong_weight(model), model, images, CLASSES)
        said = re.fullmatch(
            r'check image 1 \(96 x 128\): among 100 detections the export differs from PyTorch by up to '
            r'(\S+) px and (\S+) in score, where rounding explains (\S+) and (\S+); no file was kept, as it '
            'would be wrong',
            str(caught.value),
        )
        off, off_score, most, most_score = map(float, said.groups())
        assert off > most or off_score > most_score
        assert most <= limit


def test_rounding_is_that_of_the_detector_and_leaves_it_alone(deformable, official):
    image = scene(SIZE, 0)
    state = {name: value.clone() for name, value in official[1].state_dict().items()}
    drawn = torch.get_rng_state()
    plain, magnified = (rounding(model, image, predict(model, image)) for model in (official[1], deformable))
    assert 0 < plain[0] < 1e-4
    assert 0 < plain[1] < 1e-5
    assert magnified > (5e-4, 2e-5)
    assert rounding(official[1], image, predict(official[1], image)) == plain
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, state[name]) for name, value in official[1].state_dict().items())


def test_what_is_called_rounding_has_an_end(official, monkeypatch):
    """However unsteady a detector is."""
    monkeypatch.setattr(checking, 'rounding', lambda *_: (50.0, 0.5))
    with pytest.raises(UserError, match=r'where rounding explains 0\.01 and 0\.001; no file was kept'):
        check_export(wrong_weight(official[1]), official[1], [scene(SIZE, 0)], CLASSES)


def test_an_export_that_does_not_run_is_one_sentence(dynamic, official, tmp_path):
    """As onnxruntime refuses a graph in which the exporter took a size for fixed."""
    model = onnx.load(dynamic / 'model.onnx')
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 97
    onnx.save(model, tmp_path / 'fixed.onnx')
    with pytest.raises(UserError) as caught:
        check_export(load_onnx(tmp_path / 'fixed.onnx'), official[1], [scene(SIZE, 0)], CLASSES)
    said = str(caught.value)
    assert said.startswith('check image 1 (96 x 128): the export cannot be run ([ONNXRuntimeError]')
    assert said.endswith('; no file was kept, export for a larger --size, or without --dynamic')
    assert '\n' not in said


@pytest.mark.slow
def test_deformable_convolutions_in_onnx(deformable, tmp_path):
    write_onnx(capture(deformable, SIZE), tmp_path / 'model.onnx', {})
    images = [scene(SIZE, index) for index in range(4)]
    done = check_export(load_onnx(tmp_path / 'model.onnx'), deformable, images, CLASSES)
    assert done.detections == 400
    assert done.box < 5e-3


def some(scores, labels, shift=0.0):
    boxes = np.array([[10, 10, 20, 30], [10, 10, 21, 30], [50, 5, 60, 9]], np.float32) + np.float32(shift)
    return Detections(boxes[: len(scores)], np.array(scores, np.float32), np.array(labels))


def test_differences_are_those_of_the_same_objects():
    wanted = some([0.9, 0.5, 0.2], [1, 1, 0])
    turned = Detections(*(part[[1, 0, 2]] for part in wanted))
    assert compare(turned, wanted, 'here', 2) == (0.0, 0.0)
    assert compare(some([0.9, 0.5, 0.25], [1, 1, 0], 0.5), wanted, 'here', 2) == pytest.approx((0.5, 0.05))
    with pytest.raises(UserError, match='here: the export finds 2 objects and PyTorch 3'):
        compare(some([0.9, 0.5], [1, 1]), wanted, 'here', 2)
    with pytest.raises(UserError, match='here: PyTorch finds an object of label 0 that the export does not'):
        compare(some([0.9, 0.5, 0.2], [1, 1, 1]), wanted, 'here', 2)
    unknown = some([0.9, 0.5, float('nan')], [1, 1, 0])
    assert np.isnan(compare(unknown, wanted, 'here', 2)[1])
    model = torch.nn.Module()
    model.data_preprocessor = lambda data: data
    model.predict = lambda *_, **__: [_sample(wanted)]
    with pytest.raises(UserError, match='differs from PyTorch'):
        check_export(lambda _: unknown, model, [np.zeros((8, 8, 3), np.uint8)], 'ab')


def _sample(found):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    boxes, scores, labels = (torch.from_numpy(part) for part in found)
    return DetDataSample(pred_instances=InstanceData(bboxes=boxes, scores=scores, labels=labels))


def test_nothing_to_compare_is_no_proof(official):
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    model = torch.nn.Module()
    model.data_preprocessor = lambda data: data
    model.predict = lambda *_, **__: [_sample(none)]
    with pytest.raises(UserError, match=r'finds nothing on the 1 check images.*--images'):
        check_export(lambda _: none, model, [np.zeros((8, 8, 3), np.uint8)], 'ab')


def test_check_images_have_the_sizes_of_the_graph(tmp_path):
    assert {image.shape for image in check_images([], (64, 96), dynamic=False)} == {(64, 96, 3)}
    shapes = [image.shape[:2] for image in check_images([], (64, 96), dynamic=True, count=1)]
    assert shapes == [(64, 96), (64, 42), (101, 107)]
    first, second = check_images([], (600, 800), dynamic=False, count=2)
    assert first.shape == (600, 800, 3)
    assert np.abs(first.astype(int) - second).mean() > 5
    with pytest.raises(UserError, match=r'--images nothing.png: it does not exist or is no picture'):
        check_images(['nothing.png'], (64, 96), dynamic=False)


OPTIONS = ('--cfg-options', *as_options({**SMALL, 'model.test_cfg.inference': 'official'}))


def test_tool_leaves_no_bad_file(tool, checkpoint, dynamic, tmp_path, monkeypatch):
    """The file is written wrongly: the exporter is not to be trusted."""

    def write(program, path, metadata):
        changed(dynamic, path, 'weight')

    monkeypatch.setattr(exporting, 'capture', lambda *_: None)
    onnx_format = exporting.FORMATS['onnx']
    monkeypatch.setitem(exporting.FORMATS, 'onnx', (*onnx_format[:2], write, onnx_format[3]))
    out = tmp_path / 'bad.onnx'
    arguments = (ROOT / CONFIG, checkpoint, '--format', 'onnx', '--out', out, '--size', '96', '128')
    code, text, err = tool('export.py', *arguments, *OPTIONS)
    assert (code, text) == (2, '')
    assert 'the export differs from PyTorch' in err
    assert os.listdir(tmp_path) == []
    out.write_text('an older export')
    assert tool('export.py', *arguments, *OPTIONS)[0] == 2
    assert (os.listdir(tmp_path), out.read_text()) == (['bad.onnx'], 'an older export')


@pytest.mark.parametrize('kind', ['onnx', 'torch-export'])
def test_a_full_disk_is_one_sentence(official, dynamic, tmp_path, monkeypatch, kind):
    """What is written is a small graph, as large as any for a disk without space."""
    small = torch.export.export(torch.nn.Linear(64, 64), (torch.zeros(1, 64),))
    monkeypatch.setattr(exporting, 'capture', lambda *_: small)
    monkeypatch.setattr(exporting, 'INPUT', 'x')
    monkeypatch.setattr(exporting, 'OUTPUTS', ('y',))
    out = tmp_path / ('x' + exporting.FORMATS[kind][0])
    with full_disk(4096), pytest.raises(UserError) as caught:
        exporting.export(official[1], CLASSES, kind, out, SIZE, [scene(SIZE, 0)])
    assert str(caught.value) == f'--out {out} cannot be written (File too large); choose another place'
    assert os.listdir(tmp_path) == []


ONNX = ('--format', 'onnx', '--out', 'x.onnx')
TINY = '{config}', '{checkpoint}'


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (
            (*TINY, '--format', 'tflite', '--out', 'x'),
            '--format tflite is unknown; take onnx or torch-export',
        ),
        (
            (*TINY, '--format', 'onnx', '--out', 'x.pt2'),
            '--out x.pt2: the name of a file of --format onnx has',
        ),
        (('{config}', 'no.pth', *ONNX), 'checkpoint no.pth does not exist; correct the path'),
        (('no.py', '{checkpoint}', *ONNX), 'config file no.py does not exist'),
        (
            (*TINY, *ONNX, '--size', '8', '99999'),
            '--size 8 99999: height and width have to be 32 to 4096 pixels',
        ),
        (
            (*TINY, *ONNX, '--images', 'no.png', *OPTIONS),
            '--images no.png: it does not exist or is no picture',
        ),
        ((*TINY, *ONNX), 'checkpoint {checkpoint} does not fit the config: of the tensors'),
        (
            (*TINY, *ONNX, *OPTIONS, 'model.test_cfg.nms.type=soft_nms'),
            "test_cfg.nms {{'type': 'soft_nms', 'iou_threshold': 0.6}} cannot be exported; set",
        ),
    ],
)
def test_mistakes_are_one_sentence(tool, checkpoint, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    words = {'checkpoint': checkpoint, 'config': ROOT / CONFIG}
    code, _, err = tool('export.py', *(str(word).format(**words) for word in arguments))
    assert code == 2, err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith('error: ' + sentence.format(**words))
    assert os.listdir(tmp_path) == []


def test_a_head_without_support_is_named(tool, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = with_head('mmdet.GFLHead')
    (tmp_path / 'gfl.py').write_text(cfg.pretty_text)
    torch.save(tiny_model(cfg).state_dict(), tmp_path / 'gfl.pth')
    code, _, err = tool('export.py', 'gfl.py', 'gfl.pth', *ONNX, '--size', '96', '128')
    assert code == 2
    assert err.startswith('error: a detector with GFLHead cannot be exported; what can are one-stage')
    assert sorted(os.listdir(tmp_path)) == ['gfl.pth', 'gfl.py']


@pytest.mark.parametrize('package', ['onnx', 'onnxscript', 'onnxruntime'])
def test_a_missing_package_is_named_with_the_way_to_it(tool, checkpoint, tmp_path, monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(exporting, 'find_spec', lambda name: None if name == package else find(name))
    monkeypatch.chdir(tmp_path)
    code, _, err = tool('export.py', ROOT / CONFIG, checkpoint, *ONNX)
    assert code == 2
    assert err.strip() == (
        f"error: --format onnx needs {package}, which is not installed: pip install 'atss_ext[export]'"
    )
