"""Metrics of categories over free names: LVIS, CODA, COCO, top-k, and two processes."""

import json
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from torch import distributed as dist
from warm import spawn_warm

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.named_metric import NamedMetric, map_instances
from atss_ext.evaluation.naming import NameMatch
from atss_ext.registry import METRICS, TASK_UTILS

SIDE = 100
BOXES = [[0, 0, 20, 20], [40, 40, 80, 80]]  # xyxy
# Five images, each with a car, and with a sofa; the third has nothing.
TRUTH = {
    1: ('car_(automobile)', 'sofa'),
    2: ('car_(automobile)', 'sofa'),
    3: (),
    4: ('sofa', 'sofa'),
    5: ('bus',),
}
NAMES = {1: ['cars', 'couch'], 2: ['lorry', 'Sofa'], 3: ['cars'], 4: ['sofa', 'ghost'], 5: ['buses']}
IDS = {'sofa': 8, 'car_(automobile)': 3, 'bus': 5}


@TASK_UTILS.register_module()
class TableEncoder:
    """The lorry is nearest to the car."""

    key = 'table'
    table = {  # noqa: RUF012
        'sofa': [1.0, 0, 0], 'car (automobile)': [0, 1.0, 0], 'bus': [0, 0.6, 0.8], 'lorry': [0, 1.0, 0.1],
        'ghost': [-1.0, -1.0, -1.0],
    }  # fmt: skip

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        found = torch.tensor([self.table.get(text, [0.1, 0, 0]) for text in texts])
        return torch.nn.functional.normalize(found, dim=-1)


def write(folder, name='lvis.json'):
    annotations = []
    for image, names in TRUTH.items():
        for category, (x1, y1, x2, y2) in zip(names, BOXES, strict=False):
            annotations.append({
                'id': len(annotations) + 1, 'image_id': image, 'category_id': IDS[category], 'iscrowd': 0,
                'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': (x2 - x1) * (y2 - y1),
                'segmentation': [[x1, y1, x2, y1, x2, y2, x1, y2]], 'corner_case': True,
            })  # fmt: skip
    images = [
        {
            'id': image, 'width': SIDE, 'height': SIDE, 'file_name': f'{image}.jpg',
            'neg_category_ids': list(IDS.values()) if image == 3 else [], 'not_exhaustive_category_ids': [],
        }
        for image in TRUTH
    ]  # fmt: skip
    categories = [
        {
            'id': number,
            'name': name,
            'frequency': 'f',
            'synonyms': ['couch', name] if name == 'sofa' else [name],
        }
        for name, number in IDS.items()
    ]
    path = folder / name
    path.write_text(json.dumps({'images': images, 'annotations': annotations, 'categories': categories}))
    return str(path)


def sample_of(image):
    """As VL-SAM's."""
    names = NAMES[image]
    boxes = torch.tensor(BOXES[: len(names)], dtype=torch.float32)
    masks = np.zeros((SIDE, SIDE, len(names)), np.uint8, order='F')
    for place, (x1, y1, x2, y2) in enumerate(BOXES[: len(names)]):
        masks[y1:y2, x1:x2, place] = 1
    found = InstanceData(
        bboxes=boxes,
        scores=torch.tensor([0.9, 0.8])[: len(names)],
        labels=torch.zeros(len(names), dtype=torch.int64),
        names=list(names),
        masks=rle.encode(masks),
    )
    return {'img_id': image, 'ori_shape': (SIDE, SIDE), 'pred_instances': dict(found.items())}


def config(path, metric='LvisMetric', **settings):
    mapper = settings.pop('mapper', {'encoder': {'type': 'TableEncoder'}, 'threshold': 0})
    inner = {'type': metric, 'ann_file': path, **settings.pop('inner', {})}
    return {'type': 'atss_ext.NamedMetric', 'metric': inner, 'mapper': mapper, **settings}


def evaluate(cfg, images=tuple(TRUTH), meta=None):
    evaluator = Evaluator(cfg)
    evaluator.dataset_meta = meta or {'classes': ('thing',)}
    for image in images:
        evaluator.process([sample_of(image)])
    return evaluator.evaluate(len(images))


SHARES = {
    'names/exact': 5 / 8, 'names/synonym': 1 / 8, 'names/encoder': 1 / 8, 'names/none': 1 / 8,
    'names/detections': 8,
}  # fmt: skip


def test_lvis_by_hand(tmp_path):
    """All is found but the second sofa of image 4: three of four, which is 76 of 101 recalls.

    The car that image 3 does not have comes behind the two that are there.
    """
    inner = {'metric': ['bbox', 'segm'], 'protocol': 'fixed'}
    found = evaluate(config(write(tmp_path), 'atss_ext.LvisMetric', inner=inner))
    assert {name: found[name] for name in SHARES} == pytest.approx(SHARES)
    assert found['lvis/bbox_fixed_AP'] == pytest.approx((76 / 101 + 1 + 1) / 3)
    assert found['lvis/segm_fixed_AP'] == pytest.approx((76 / 101 + 1 + 1) / 3)


def test_equals_the_metric_on_mapped_labels(tmp_path):
    """An oracle without the wrapper: labels by hand."""
    path = write(tmp_path)
    labels = {1: [1, 0], 2: [1, 0], 3: [1], 4: [0], 5: [2]}
    plain = METRICS.build({'type': 'atss_ext.LvisMetric', 'ann_file': path})
    plain.dataset_meta = {'classes': tuple(IDS)}
    for image, its_labels in labels.items():
        sample = sample_of(image)
        kept = {
            name: values[: len(its_labels)]
            for name, values in sample['pred_instances'].items()
            if name != 'names'
        }
        plain.process({}, [{**sample, 'pred_instances': {**kept, 'labels': torch.tensor(its_labels)}}])
    expected = plain.evaluate(5)
    found = evaluate(config(path, 'atss_ext.LvisMetric'))
    assert {name: value for name, value in found.items() if name.startswith('lvis/')} == expected
    assert expected['lvis/bbox_AP'] > 0.8


def test_coco_metric_of_mmdet(tmp_path):
    found = evaluate(config(write(tmp_path), 'mmdet.CocoMetric', inner={'metric': ['bbox', 'segm']}))
    assert {name: found[name] for name in SHARES} == pytest.approx(SHARES)
    assert found['coco/bbox_mAP'] == pytest.approx(found['coco/segm_mAP'])
    assert found['coco/bbox_mAP'] > 0.8


@pytest.mark.parametrize('backend', ['fast', 'reference'])
def test_coco_metric_of_this_package_by_hand(tmp_path, backend):
    """Here too the file's categories are its classes, and not the dataset's; figures as of LVIS above."""
    inner = {'metric': ['bbox', 'segm'], 'backend': backend}
    found = evaluate(config(write(tmp_path), 'atss_ext.CocoMetric', inner=inner))
    assert {name: found[name] for name in SHARES} == pytest.approx(SHARES)
    assert found['coco/bbox_AP'] == pytest.approx((76 / 101 + 1 + 1) / 3)
    assert found['coco/segm_AP'] == pytest.approx((76 / 101 + 1 + 1) / 3)
    assert found['coco/bbox_AR@100'] == pytest.approx((3 / 4 + 1 + 1) / 3)


def test_coda_goes_by_names_and_keeps_what_fits_nothing(tmp_path):
    """The ghost finds the second object of image 4, which counts where names do not."""
    path = write(tmp_path, 'corner_case.json')
    kept = evaluate(config(path, 'atss_ext.CodaMetric', unmapped='keep'))
    assert kept['coda/bbox_CORNER_mAR'] == pytest.approx(1)
    dropped = evaluate(config(path, 'atss_ext.CodaMetric'))
    assert dropped['coda/bbox_CORNER_mAR'] == pytest.approx(6 / 7)
    assert {name: dropped[name] for name in SHARES} == pytest.approx(SHARES)


@pytest.mark.parametrize('metric', ['atss_ext.LvisMetric', 'atss_ext.CocoMetric', 'mmdet.CocoMetric'])
def test_what_fits_nothing_is_not_kept_for_a_metric_of_labels(tmp_path, metric):
    """Its label -1 would be the last category's."""
    with pytest.raises(ValueError, match=r"unmapped='keep' .* goes by labels; leave it away"):
        METRICS.build(config(write(tmp_path), metric, unmapped='keep'))


def test_recall_keeps_what_fits_nothing(tmp_path):
    path = write(tmp_path)
    found = [evaluate(config(path, 'atss_ext.AgnosticRecall', unmapped=how)) for how in ('keep', 'drop')]
    assert [one['agnostic/bbox_AR@100'] for one in found] == pytest.approx([1, 6 / 7])


def test_classes_of_a_metric_of_labels_are_the_files(tmp_path):
    """Other ones would give every label another meaning."""
    path = write(tmp_path)
    plain = evaluate(config(path, 'atss_ext.CocoMetric'))
    same = evaluate(config(path, 'atss_ext.CocoMetric', inner={'classes': list(IDS)}))
    assert same == plain
    for classes in (list(IDS)[::-1], ['sofa'], 'mmdet.CocoDataset'):
        with pytest.raises(DataError, match=r'CocoMetric has the classes .* gives it the 3 categories'):
            METRICS.build(config(path, 'atss_ext.CocoMetric', inner={'classes': classes}))


def test_classes_of_metrics_without_labels_stay_theirs(tmp_path):
    """Recall looks for sofas alone, of which it finds three of four; CODA goes by names."""
    path = write(tmp_path, 'corner_case.json')
    found = evaluate(config(path, 'atss_ext.AgnosticRecall', inner={'classes': ['sofa']}))
    assert found['agnostic/bbox_AR@100'] == pytest.approx(3 / 4)
    found = evaluate(config(path, 'atss_ext.CodaMetric', inner={'classes': ['bus', 'sofa']}))
    assert found['coda/bbox_CORNER_mAR'] == pytest.approx(6 / 7)


def test_samples_stay_as_they_are(tmp_path):
    cfg = config(write(tmp_path), 'atss_ext.LvisMetric')
    evaluator = Evaluator([cfg])
    sample = sample_of(4)
    evaluator.process([sample])
    assert sample['pred_instances']['names'] == ['sofa', 'ghost']
    assert sample['pred_instances']['labels'].tolist() == [0, 0]


def test_top_k_makes_rows_of_weighted_scores():
    matches = [
        NameMatch((2, 0), (0.75, 0.25), 'encoder'),
        NameMatch((), (), 'none'),
        NameMatch((1,), (0.5,), 'exact'),
    ]
    found = {
        'bboxes': torch.arange(12.0).reshape(3, 4), 'scores': torch.tensor([0.8, 0.6, 0.4]),
        'mask_scores': np.array([0.4, 0.2, 1.0]), 'labels': torch.zeros(3, dtype=torch.int64),
        'names': ['x', 'y', 'z'], 'masks': ['m0', 'm1', 'm2'],
    }  # fmt: skip
    rows = map_instances(found, matches, ['a', 'b', 'c'], 'drop')
    assert rows['labels'].tolist() == [2, 0, 1]
    assert rows['names'] == ['c', 'a', 'b']
    assert rows['masks'] == ['m0', 'm0', 'm2']
    assert rows['bboxes'][:, 0].tolist() == [0, 0, 8]
    assert rows['scores'].tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert rows['mask_scores'].tolist() == pytest.approx([0.3, 0.1, 0.5])
    kept = map_instances(found, matches, ['a', 'b', 'c'], 'keep')
    assert kept['labels'].tolist() == [2, 0, -1, 1]
    assert kept['names'] == ['c', 'a', 'y', 'b']
    assert kept['scores'].tolist() == pytest.approx([0.6, 0.2, 0.6, 0.2])


def test_nothing_found_is_0(tmp_path, monkeypatch):
    monkeypatch.setattr(f'{__name__}.NAMES', {image: [] for image in TRUTH})
    found = evaluate(config(write(tmp_path), 'atss_ext.LvisMetric'))
    assert found['lvis/bbox_AP'] == 0
    assert {name: found[name] for name in SHARES} == dict.fromkeys(SHARES, 0)


def test_wrong_input_is_said(tmp_path):
    path = write(tmp_path)
    with pytest.raises(ValueError, match='names an ann_file'):
        NamedMetric({'type': 'atss_ext.OpenEndedResults'})
    with pytest.raises(ValueError, match="'drop' or 'keep'"):
        NamedMetric({'type': 'atss_ext.LvisMetric', 'ann_file': path}, unmapped='hide')
    metric = NamedMetric({'type': 'atss_ext.LvisMetric', 'ann_file': path})
    sample = sample_of(1)
    del sample['pred_instances']['names']
    with pytest.raises(DataError, match='image 1 has detections without names'):
        metric.process({}, [sample])


def _process(rank, folder):
    """One of two processes; of five images the sampler gives the first one twice, which must not count."""
    limit = timedelta(seconds=60)
    dist.init_process_group('gloo', f'file://{folder}/store', limit, world_size=2, rank=rank)
    try:
        found = evaluate_part(folder, ((1, 3, 5), (2, 4, 1))[rank])
        (folder / f'{rank}.json').write_text(json.dumps(found))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _other(_, folder):
    torch.set_num_threads(1)
    _process(1, folder)


def evaluate_part(folder, images):
    evaluator = Evaluator(config(str(folder / 'lvis.json'), 'atss_ext.LvisMetric'))
    evaluator.dataset_meta = {'classes': ('thing',)}
    for image in images:
        evaluator.process([sample_of(image)])
    return evaluator.evaluate(5)


def test_two_processes_give_the_figures_of_one(tmp_path):
    write(tmp_path)
    expected = pytest.approx(evaluate_part(tmp_path, tuple(TRUTH)))
    context = spawn_warm(_other, args=(tmp_path,), nprocs=1, join=False)
    try:
        _process(0, tmp_path)
        context.join(timeout=60)
    finally:
        for process in context.processes:
            process.kill()
    assert [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(2)] == [expected, expected]
