"""tools/analysis/show_assignment.py: against mmdet's assigner, a literal threshold, and literal counts."""

import dataclasses
import json
import shlex

import cv2
import numpy as np
import pytest
import torch
from doc_pages import commands_of
from mmdet.models.task_modules import AnchorGenerator
from mmdet.models.task_modules import ATSSAssigner as MMDetATSSAssigner
from mmengine.config import Config
from mmengine.structures import InstanceData
from tiny_coco import REPO

from atss_ext.datasets import ShapesSpec, write_coco
from atss_ext.visualization.assignment import gt_colour
from atss_ext.visualization.assignments import (
    AssignedImage,
    Explainer,
    ImageSource,
    count_unassigned,
    draw_comparison,
    object_rows,
)
from atss_ext.visualization.page import Page

TOOL = 'analysis/show_assignment.py'
IOU = """
_base_ = 'tiny.py'
model = dict(train_cfg=dict(assigner=dict(
    _delete_=True, type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, match_low_quality=False)))
"""
TWICE = """
_base_ = 'tiny.py'
val_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs', meta_keys=('img_id', ))]))
"""
ALIGNED = """
_base_ = 'tiny.py'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    train_cfg=dict(assigner=dict(_delete_=True, type='atss_ext.TaskAlignedAssigner', topk=5)))
"""
POINTS = "_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'"
TWO_STAGES = "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"
STRIDES = [8, 16, 32, 64, 128]


def anchors(size):
    generator = AnchorGenerator(STRIDES, ratios=[1.0], octave_base_scale=8, scales_per_octave=1)
    levels = generator.grid_priors([(-(-size // s), -(-size // s)) for s in STRIDES], device='cpu')
    return torch.cat(levels), [len(level) for level in levels]


def literal_threshold(box, priors, sizes):
    """Algorithm 1, lines 3-10, for one gt."""
    x1, y1, x2, y2 = box
    ious = []
    for level in np.split(priors, np.cumsum(sizes)[:-1]):
        centres = (level[:, :2] + level[:, 2:]) / 2
        nearest = np.argsort(((centres - [(x1 + x2) / 2, (y1 + y2) / 2]) ** 2).sum(1), kind='stable')[:9]
        for a, b, c, d in level[nearest]:
            shared = max(0, min(c, x2) - max(a, x1)) * max(0, min(d, y2) - max(b, y1))
            ious.append(shared / ((c - a) * (d - b) + (x2 - x1) * (y2 - y1) - shared))
    return np.mean(ious) + np.std(ious, ddof=1)


@pytest.fixture
def moved(tiny):
    """The tiny data, with boxes off the grid: no two priors are equally near."""
    coco = tiny.coco('val')
    for one, box in zip(coco['annotations'], ([9, 11, 31, 23], [29.5, 24.3, 24, 30]), strict=True):
        one.update(bbox=box, area=box[2] * box[3])
    tiny.write('val.json', coco)
    return tiny


@pytest.mark.parametrize(('content', 'factor'), [("_base_ = 'tiny.py'", 1), (TWICE, 2)])
def test_assignment_is_mmdets_on_the_resized_image(moved, content, factor):
    cfg = Config.fromfile(moved.write('other.py', content))
    source = ImageSource(cfg)
    shown = Explainer(cfg).explain(source[0], source.classes)
    box = np.array([9, 11, 40, 34]) * factor
    priors, sizes = anchors(64 * factor)
    gts = InstanceData(bboxes=torch.tensor(box[None]).float(), labels=torch.tensor([0]))
    expected = MMDetATSSAssigner(topk=9).assign(InstanceData(priors=priors), sizes, gts).gt_inds
    assert expected.sum() > 0
    assert shown.assigned.tolist() == expected.tolist()
    assert shown.boxes.tolist() == [box.tolist()]
    assert shown.names == ('box',)
    assert shown.areas.tolist() == pytest.approx([31 * 23])  # of the file, not of the resized image
    assert shown.image.shape == (64 * factor, 64 * factor, 3)
    assert shown.thresholds.tolist() == pytest.approx([literal_threshold(box, priors.numpy(), sizes)])
    of_levels = [int(level.sum()) for level in expected.split(sizes)]
    assert shown.positives.tolist() == [of_levels]


def test_an_image_is_shown_in_its_own_colours(moved):
    cfg = Config.fromfile(moved.config)
    shown = Explainer(cfg).explain(ImageSource(cfg)[0], ('box', 'disc'))
    pixels = cv2.imread(str(moved.root / 'images/val_0.png'))[..., ::-1]
    np.testing.assert_array_equal(shown.image, pixels)


def handmade():
    """Two levels of 16 and 4 priors on 64 x 64; three gts, of which the last has no positive."""
    priors = []
    for stride, count in ((16, 4), (32, 2)):
        x, y = np.meshgrid((np.arange(count) + 0.5) * stride, (np.arange(count) + 0.5) * stride)
        centres = np.stack([x.ravel(), y.ravel()], 1)
        priors.append(np.concatenate([centres - stride, centres + stride], 1))
    assigned = np.zeros(20, np.int64)
    assigned[[0, 1, 5]] = 1
    assigned[[10, 19]] = 2
    assigned[3] = -1
    boxes = np.array([[2, 2, 30, 30], [30, 30, 63, 63], [42, 3, 60, 20]], np.float32)
    return AssignedImage(
        image=np.full((64, 64, 3), 200, np.uint8),
        boxes=boxes,
        names=('a', 'b', 'c'),
        areas=np.array([32.0**2 - 1, 32.0**2, 96.0**2], np.float32),
        priors=np.concatenate(priors).astype(np.float32),
        level_sizes=(16, 4),
        strides=(16.0, 32.0),
        assigned=assigned,
        valid=np.ones(20, bool),
        thresholds=np.array([0.3, 0.4, 0.5], np.float32),
    )


def test_every_positive_has_its_gts_colour_on_its_level_alone(tmp_path):
    image = handmade()
    places = draw_comparison(tmp_path / 'page.png', [('one', image), ('two', image)], 'title', 192)
    page = cv2.imread(str(tmp_path / 'page.png'))[..., ::-1].astype(int)
    assert [len(row) for row in places] == [3, 3]
    for row in places:
        for number, prior in enumerate(image.priors):
            level, owner = (0 if number < 16 else 1), image.assigned[number]
            for panel_level, panel in enumerate(row[1:]):
                column, line = panel.pixel(*((prior[:2] + prior[2:]) / 2))
                seen = [np.abs(page[line, column] - gt_colour(gt)).max() < 12 for gt in range(3)]
                wanted = [panel_level == level and owner == gt + 1 for gt in range(3)]
                assert seen == wanted, (number, panel_level)
    column, line = places[0][1].pixel(60, 40)
    assert page[line, column].max() < 100  # the image of a level is dark


def crowd():
    """20 gts of one prior each, but for numbers 5, 18 and 20, which have none."""
    boxes = np.array([[n, n, n + 20, n + 20] for n in range(20)], np.float32)
    assigned = np.zeros(20, np.int64)
    for prior, number in enumerate(number for number in range(1, 21) if number not in (5, 18, 20)):
        assigned[prior] = number
    names = tuple(f'thing{number}' for number in range(1, 21))
    areas = np.full(20, 400, np.float32)
    return dataclasses.replace(
        handmade(), boxes=boxes, names=names, areas=areas, assigned=assigned, thresholds=None
    )


def written_words(monkeypatch, *images):
    """What is written on the page, from top to bottom."""
    words = []
    original = Page.text
    monkeypatch.setattr(Page, 'text', lambda self, x, y, text, *a, **k: (
        words.append((y, x, text)), original(self, x, y, text, *a, **k)))  # fmt: skip
    draw_comparison('page.png', [(f'config {n}', image) for n, image in enumerate(images)], 'title', 192)
    return [text for _, _, text in sorted(words)]


def test_objects_without_a_positive_come_first_in_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = written_words(monkeypatch, crowd())
    first = [5, 18, 20, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert [word for word in words if ' thing' in word] == [f'{n} thing{n}' for n in first]
    assert words[-1] == 'and 4 more'
    # Number 2 has positives by the first config, and none by the second.
    lost = crowd()
    lost.assigned[lost.assigned == 2] = 0
    words = written_words(monkeypatch, crowd(), lost)
    assert [word for word in words if ' thing' in word][:5] == [f'{n} thing{n}' for n in (2, 5, 18, 20, 1)]
    lost.assigned[:] = 0
    assert written_words(monkeypatch, lost)[-1] == 'and 4 more, 4 of them without a positive'


def test_every_object_is_listed():
    rows = object_rows(crowd())
    assert [row['object'] for row in rows] == [5, 18, 20, *(n for n in range(1, 20) if n not in (5, 18))]
    assert rows[0] == {
        'object': 5,
        'name': 'thing5',
        'box': [4.0, 4.0, 24.0, 24.0],
        'area': 400.0,
        'threshold': None,
        'positives': 0,
        'by_level': [0, 0],
    }
    assert rows[-1]['by_level'] == [0, 1]  # 19 has the 17th prior, of which the first level has 16
    rows = object_rows(handmade())
    assert [row['threshold'] for row in rows] == pytest.approx([0.5, 0.3, 0.4])
    assert [row['by_level'] for row in rows] == [[0, 0], [3, 0], [1, 1]]


def test_the_objects_of_an_image_are_written_as_json(tiny, in_process, tmp_path):
    iou = tiny.write('iou.py', IOU)
    words = ['--index', '1', '--out', tmp_path / 'page.png', '--json', tmp_path / 'new/objects.json']
    code, said = in_process(TOOL, iou, tiny.config, *words)
    assert code == 0, said
    first, second = json.loads((tmp_path / 'new/objects.json').read_text())
    assert (first['config'], first['assigner'], first['strides']) == ('iou', 'MaxIoUAssigner', STRIDES)
    [row] = first['objects']
    assert (row['object'], row['name'], row['box'], row['area']) == (1, 'disc', [30, 24, 54, 54], 720)
    assert (row['positives'], row['by_level'], row['threshold']) == (0, [0] * 5, None)
    assert second['assigner'] == 'ATSSAssigner'
    [row] = second['objects']
    explainer = Explainer(Config.fromfile(tiny.config))
    shown = explainer.explain(ImageSource(Config.fromfile(tiny.config))[1], ('box', 'disc'))
    priors, sizes = anchors(64)
    assert row['threshold'] == pytest.approx(literal_threshold(row['box'], priors.numpy(), sizes), abs=1e-6)
    assert row['positives'] == int((shown.assigned == 1).sum()) > 0


def test_counts_are_by_size(tmp_path):
    counts = count_unassigned([handmade(), handmade()])
    assert counts == {
        'small': {'gts': 2, 'without': 0, 'positives': 6},
        'medium': {'gts': 2, 'without': 0, 'positives': 4},
        'large': {'gts': 2, 'without': 2, 'positives': 0},
        'all': {'gts': 6, 'without': 2, 'positives': 10},
    }


def test_the_table_of_a_dataset_compares_two_assigners(tiny, in_process):
    """No anchor of 64 pixels overlaps a box of 30 x 20 or 24 x 30 by half."""
    iou = tiny.write('iou.py', IOU)
    code, said = in_process(TOOL, iou, tiny.config, '--statistics', '--json', tiny.root / 'counts.json')
    assert code == 0, said
    first, second = json.loads((tiny.root / 'counts.json').read_text())
    assert (first['config'], first['assigner']) == ('iou', 'MaxIoUAssigner')
    assert first['sizes']['small'] == {'gts': 2, 'without': 2, 'positives': 0}
    assert first['sizes']['medium'] == {'gts': 0, 'without': 0, 'positives': 0}
    assert second['assigner'] == 'ATSSAssigner'
    assert second['sizes']['all']['without'] == 0
    assert second['sizes']['all']['positives'] > 2


def test_two_configs_are_drawn_on_an_image_of_an_annotation_file(tiny, in_process, tmp_path):
    iou = tiny.write('iou.py', IOU)
    options = ['--image', tiny.root / 'images/val_1.png', '--ann', tiny.root / 'val.json']
    code, said = in_process(TOOL, tiny.config, iou, *options, '--out', tmp_path / 'out/page.png')
    assert code == 0, said
    assert cv2.imread(str(tmp_path / 'out/page.png')).shape[1] > 6 * 300


def test_an_assigner_by_predictions_takes_a_random_model_or_weights(tiny, in_process, tmp_path):
    config = tiny.write('aligned.py', ALIGNED)
    code, said = in_process(TOOL, config, '--out', tmp_path / 'page.png')
    assert code == 0, said
    notes = [line for line in said.splitlines() if line.startswith('note: ')]
    assert len(notes) == 1
    assert 'TaskAlignedAssigner of aligned goes by predictions, here of a random initial model' in notes[0]
    explainer = Explainer(Config.fromfile(config))
    torch.save({'state_dict': explainer.model.state_dict()}, tmp_path / 'weights.pth')
    code, said = in_process(
        TOOL, config, '--out', tmp_path / 'same.png', '--checkpoint', tmp_path / 'weights.pth'
    )
    assert code == 0, said
    assert 'random' not in said
    assert (tmp_path / 'same.png').read_bytes() == (tmp_path / 'page.png').read_bytes()


BAD = {
    'three': (['tiny.py'] * 3, '3 configs are given; one is shown, or two are compared'),
    'index': (['tiny.py', '--index', '2'], 'image 2 does not exist: '),
    'negative': (['tiny.py', '--index', '-1'], 'image -1 does not exist: '),
    'image': (['tiny.py', '--image', 'val_7.png'], "has no image val_7.png (did you mean 'val_"),
    'no file': (
        ['tiny.py', '--ann', 'gone.json', '--image', 'val_0.png'],
        'annotation file gone.json does not',
    ),
    'no pixels': (['tiny.py', '--ann', 'val.json', '--image', 'val_0.png'], 'image val_0.png does not exist'),
    'config': (['gone.py'], 'config file gone.py does not exist'),
    'points': (['points.py'], 'FCOSHead of config points.py has no assigner'),
    'two stages': (['stages.py'], 'config stages.py has no model.bbox_head'),
    'weights': (['tiny.py', '--checkpoint', 'gone.pth'], 'checkpoint gone.pth does not exist'),
    'many weights': (['tiny.py', '--checkpoint', 'a', 'b'], '2 checkpoints are given for 1 configs'),
    'folder': (['tiny.py', '--images', 'gone'], 'image folder gone does not exist'),
    'width': (['tiny.py', '--width', '5'], '--width is 5'),
    'limit': (['tiny.py', '--statistics', '--max-images', '0'], '--max-images is 0'),
    'out': (['tiny.py', '--out', '.'], '--out . is a folder; name a file'),
    'json': (['tiny.py', '--json', 'val.json/x'], '--json val.json/x cannot be written, because '),
    'own': (['tiny.py', '--ann', 'val.json', '--json', 'val.json'], 'val.json is a file that is read'),
}


@pytest.mark.parametrize('name', BAD)
def test_a_users_error_is_one_sentence(tiny, in_process, monkeypatch, name):
    words, sentence = BAD[name]
    tiny.write('points.py', POINTS)
    tiny.write('stages.py', TWO_STAGES)
    monkeypatch.chdir(tiny.root)
    code, said = in_process(TOOL, *words)
    assert code == 2, said
    assert said.splitlines()[-1].startswith('error: ')
    assert sentence in said.splitlines()[-1]
    assert 'Traceback' not in said


def test_every_documented_command_runs_as_it_stands(tmp_path, in_process):
    lines = commands_of('docs/assignment.md')
    assert len(lines) == 3
    (tmp_path / 'configs').symlink_to(REPO / 'configs')
    write_coco(tmp_path / 'data/shapes', 'val', 12, ShapesSpec(), 0)
    for line in lines:
        python, script, *words = shlex.split(line)
        assert python == 'python'
        code, said = in_process(script.removeprefix('tools/'), *words)
        assert code == 0, (line, said)
    assert (
        cv2.imread(str(tmp_path / 'assignment.png')).shape[:2]
        == cv2.imread(str(REPO / 'docs/images/assignment_compared.png')).shape[:2]
    )
    assert len(json.loads((tmp_path / 'counts.json').read_text())) == 2
    listed = json.loads((tmp_path / 'objects.json').read_text())
    # As the picture of the page shows them.
    assert [[row['positives'] for row in one['objects']] for one in listed] == [
        [12, 14, 16, 15, 18, 14, 16],
        [9, 9, 15, 16, 9, 9, 17],
    ]
