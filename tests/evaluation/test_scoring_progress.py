"""What is said while a metric scores."""

import json
import logging
import re

import pytest

from atss_ext.evaluation.coco import CocoMetric
from atss_ext.evaluation.lvis import LvisMetric
from atss_ext.evaluation.progress import scoring


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(logging.Logger, 'info', lambda self, text, *rest: lines.append(text))
    return lines


def test_a_line_before_and_a_line_after(said):
    with scoring('LVIS', 19_800, 3_310_000, 'bbox, standard'):
        assert said == ['LVIS: scoring 19,800 images, 3.3 million detections, bbox, standard ...']
    assert re.fullmatch(r'LVIS: scored bbox, standard in \d+\.\d s', said[1])
    with scoring('CODA', 1500, 45_000, 'segm'):
        pass
    assert said[2] == 'CODA: scoring 1,500 images, 45,000 detections, segm ...'


def test_a_command_takes_the_lines_itself(said):
    own = []
    with scoring('coda', 2, 3, 'bbox', own.append):
        assert own == ['coda: scoring 2 images, 3 detections, bbox ...']
    assert re.fullmatch(r'coda: scored bbox in \d+\.\d s', own[1])
    assert not said


def test_after_an_error_nothing_is_said(said):
    with pytest.raises(KeyError), scoring('COCO', 1, 1, 'bbox'):
        raise KeyError
    assert len(said) == 1


def test_metrics_say_it_for_each_kind_of_figures(said, tmp_path):
    path = tmp_path / 'ann.json'
    image = {'id': 1, 'height': 90, 'width': 90, 'neg_category_ids': [], 'not_exhaustive_category_ids': []}
    path.write_text(json.dumps({
        'images': [image, {**image, 'id': 2}], 'categories': [{'id': 1, 'name': 'axe', 'frequency': 'r'}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 2, 30, 40], 'area': 1200,
                         'iscrowd': 0}],
    }))  # fmt: skip
    found = {'bboxes': [[1, 2, 31, 42]], 'scores': [0.5], 'labels': [0]}
    for metric in (LvisMetric(str(path), protocol=['standard', 'fixed']), CocoMetric(str(path))):
        metric.process(None, [{'img_id': 1, 'pred_instances': found}])
        metric.evaluate(2)
    assert [line for line in said if ' scoring ' in line] == [
        'LvisMetric: scoring 2 images, 1 detections, bbox, standard ...',
        'LvisMetric: scoring 2 images, 1 detections, bbox, fixed ...',
        'CocoMetric: scoring 2 images, 1 detections, bbox ...',
    ]
    assert sum(' scored ' in line for line in said) == 3
