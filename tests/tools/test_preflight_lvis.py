"""The checks before a run, with LVIS's files (no file_name, images at the end of coco_url) and CODA's."""

import json
from pathlib import Path

import pytest
from mmdet.datasets.api_wrappers import COCO
from mmengine.config import Config
from PIL import Image

import atss_ext  # noqa: F401 - fills the registries
from atss_ext.cli import preflight
from atss_ext.datasets import LvisDataset
from atss_ext.datasets.checks import DataError
from atss_ext.errors import UserError

REPO = Path(__file__).resolve().parents[2]
NAMES = LvisDataset.METAINFO['classes']
CONFIGS = sorted((REPO / 'configs/lvis').glob('atss*.py'))
URL = 'http://images.cocodataset.org/'


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """A check lends what it has parsed to the datasets of its process: not to the next test."""
    monkeypatch.setattr(LvisDataset, 'READER', COCO)
    monkeypatch.setattr(preflight._LentCOCO, 'lent', {})


@pytest.fixture
def lvis(tmp_path):
    """A root with LVIS's two files, an image each; one of val lies in train2017, as in LVIS."""
    for split, place in (('train', 'train2017/1.jpg'), ('val', 'train2017/2.jpg')):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.new('RGB', (64, 48)).save(tmp_path / place)
        write(tmp_path, split, lvis_content(place))
    return tmp_path


def lvis_content(place, names=NAMES):
    image = {'id': 1, 'width': 64, 'height': 48, 'coco_url': URL + place, 'neg_category_ids': [],
             'not_exhaustive_category_ids': []}  # fmt: skip
    box = {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [4, 4, 20, 20], 'area': 400}
    categories = [{'id': i, 'name': name, 'frequency': 'f'} for i, name in enumerate(names, start=1)]
    return {'images': [image], 'annotations': [box], 'categories': categories}


def write(root, split, content):
    (root / 'annotations').mkdir(exist_ok=True)
    (root / f'annotations/lvis_v1_{split}.json').write_text(json.dumps(content))


def config(root, path=CONFIGS[0]):
    """A config of LVIS whose data lies in ``root``."""
    cfg = Config.fromfile(path)
    for dataset in (cfg.train_dataloader.dataset.dataset, cfg.val_dataloader.dataset):
        dataset.data_root = str(root)
    cfg.val_evaluator.ann_file = str(root / 'annotations/lvis_v1_val.json')
    return cfg


def check(cfg):
    preflight.check_data(cfg, 'train_dataloader', 'val_dataloader')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_configs_of_lvis_pass_with_files_that_have_no_file_name(lvis, path, capsys):
    check(config(lvis, path))
    assert capsys.readouterr().err == ''


def test_the_file_is_parsed_once(lvis, monkeypatch):
    cfg = config(lvis)
    check(cfg)
    monkeypatch.setattr(json, 'load', lambda *_: pytest.fail('parsed again'))
    dataset = preflight.DATASETS.build({**cfg.train_dataloader.dataset.dataset, 'pipeline': []})
    assert dataset.get_data_info(0)['img_path'] == f'{lvis}/train2017/1.jpg'


def test_a_missing_image_is_named_with_the_place_it_was_looked_for(lvis):
    (lvis / 'train2017/2.jpg').unlink()
    with pytest.raises(DataError) as caught:
        check(config(lvis))
    ann = lvis / 'annotations/lvis_v1_val.json'
    assert str(caught.value) == (
        f'val_dataloader: an image of {ann} is missing, first {lvis}/train2017/2.jpg; put the files there, '
        'or correct data_root and data_prefix of the dataset'
    )


def test_a_wrong_root(lvis):
    with pytest.raises(
        DataError, match=r'train_dataloader: annotation file gone/.*_train.json does not exist'
    ):
        check(config('gone' / Path()))


FAULTS = {
    'a COCO file': (lvis_content('train2017/1.jpg', ['cat', 'axe']),
                    r"has no category 'aerosol_can' \(1202 of the 1203 classes are not among its 2\)"),
    'one renamed': (lvis_content('train2017/1.jpg', [*NAMES[:-1], 'courgette']),
                    "has no category 'zucchini'; set"),
    'another order': (lvis_content('train2017/1.jpg', NAMES[::-1]), 'has its categories in another order'),
    'an image of nothing': ({**lvis_content('train2017/1.jpg'), 'images': [5]}, 'image number 0 of .* is 5'),
}  # fmt: skip


@pytest.mark.parametrize('fault', FAULTS)
def test_files_that_do_not_fit(lvis, fault):
    content, sentence = FAULTS[fault]
    write(lvis, 'train', content)
    with pytest.raises(DataError, match=f'^train_dataloader: .*{sentence}'):
        check(config(lvis))


def test_a_head_of_another_size(lvis):
    cfg = config(lvis)
    cfg.model.bbox_head.num_classes = 80
    with pytest.raises(DataError, match='num_classes is 80, but the dataset of train_dataloader has 1203'):
        check(cfg)


def test_coco_classes_with_a_file_of_lvis(lvis):
    cfg = config(lvis)
    cfg.train_dataloader.dataset.dataset.type = 'mmdet.CocoDataset'
    with pytest.raises(DataError, match=r"no 'file_name'; but a 'coco_url' .* type='atss_ext.LvisDataset'"):
        check(cfg)


def test_the_file_of_a_metric_in_a_metric(lvis):
    cfg = config(lvis)
    inner = dict(cfg.val_evaluator, ann_file='gone.json')
    cfg.val_evaluator = {'type': 'atss_ext.NamedMetric', 'metric': inner}
    with pytest.raises(UserError, match=r'val_evaluator: annotation file gone.json does not exist'):
        check(cfg)


def test_coda_is_looked_at_too(tmp_path):
    image = {'id': 1, 'file_name': 'a.jpg', 'width': 9, 'height': 9}
    content = {'images': [image], 'annotations': [], 'categories': [{'id': 3, 'name': 'car'}]}
    (tmp_path / 'corner_case.json').write_text(json.dumps(content))
    dataset = {'type': 'atss_ext.CodaDataset', 'data_root': str(tmp_path), 'ann_file': 'corner_case.json',
               'test_mode': True}  # fmt: skip
    cfg = Config({'val_dataloader': {'dataset': dataset}})
    with pytest.raises(DataError, match=rf'val_dataloader: image folder {tmp_path}/images does not exist'):
        check(cfg)
    (tmp_path / 'images').mkdir()
    with pytest.raises(DataError, match=f'is missing, first {tmp_path}/images/a.jpg; put'):
        check(cfg)
    (tmp_path / 'images/a.jpg').touch()
    check(cfg)
