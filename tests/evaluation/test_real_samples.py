"""Figures on real annotations of LVIS and CODA2022, equal to those of lvis-api and pycocotools to 1e-6.

Needs lvis/lvis_val_100.json, coda/instance_val_common_300.json and coda/instance_val_agnostic_corner_300.json
in the folder ATSS_DATA_ROOT; run with -m slow -s to see the differences.
"""

import contextlib
import copy
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from atss_ext.evaluation.coco import coco_figures, read_truth
from atss_ext.evaluation.coco.result_file import check_results, found_of
from atss_ext.evaluation.coda import check_coda_results, coda_figures, named_found, read_coda
from atss_ext.evaluation.lvis import LvisTruth, from_coco, lvis_figures

pytestmark = pytest.mark.slow
BACKENDS = ('fast', 'reference')
KINDS = ('bbox', 'segm')


def data(name):
    root = os.environ.get('ATSS_DATA_ROOT')
    if root is None:
        pytest.skip('needs samples: set ATSS_DATA_ROOT to the folder that holds lvis/ and coda/')
    return Path(root) / name  # one that is missing there is a mistake


def say(what, differences):
    print(f'{what}: largest difference {max(differences):.1e} of {len(differences)} figures')
    assert max(differences) < 1e-6


def rectangle(box, size):
    """Run lengths of a box with a corner cut off; size is height and width."""
    x, y, w, h = box
    found = rle.merge(rle.frPyObjects([[x, y, x + w, y, x + w, y + h, x, y + h * 0.6]], *size))
    return {'size': list(found['size']), 'counts': found['counts'].decode()}


def near(box, rng, width, height):
    """A box near to another one, inside of the image."""
    x, y, w, h = box
    spread = rng.choice([0, 0.02, 0.1, 0.4])
    dx, dy, dw, dh = rng.uniform(-spread, spread, 4)
    left, top = np.clip([x + dx * w, y + dy * h], 0, [width - 2, height - 2])
    right, bottom = np.minimum([left + w * (1 + dw), top + h * (1 + dh)], [width, height])
    return [float(left), float(top), float(max(right - left, 1)), float(max(bottom - top, 1))]


def adversarial(content, seed, categories):
    """Detections that are hard to count: equal scores, doubles, wrong and unasked categories, crowded images.

    Each tenth image has none; a few have more than any limit takes.
    """
    rng = np.random.default_rng(seed)
    objects = {}
    for one in content['annotations']:
        objects.setdefault(one['image_id'], []).append(one)
    rows = []
    for number, image in enumerate(content['images']):
        width, height = image['width'], image['height']
        if number % 10 == 3:
            continue
        for one in objects.get(image['id'], ()):
            for _ in range(rng.integers(0, 4)):
                category = one['category_id'] if rng.random() < 0.8 else int(rng.choice(categories))
                rows.append((image, category, near(one['bbox'], rng, width, height), rng.integers(1, 9) / 8))
        asked = [*image.get('neg_category_ids', ()), *image.get('not_exhaustive_category_ids', ())]
        extra = [int(rng.choice(categories)) for _ in range(450 if number % 16 == 0 else 5)]
        for category in [*asked[:8], *extra]:
            place = [rng.uniform(0, width - 2), rng.uniform(0, height - 2), *rng.uniform(1, 150, 2)]
            rows.append((image, category, near(place, rng, width, height), rng.integers(1, 9) / 8))
    rng.shuffle(rows)
    return [
        {'image_id': image['id'], 'category_id': int(category), 'bbox': box, 'score': float(score),
         'segmentation': rectangle(box, (height, width))}
        for image, category, box, score in rows
        for height, width in [(image['height'], image['width'])]
    ]  # fmt: skip


def only(results, kind):
    """Masks without boxes: both oracles would take the areas of the boxes."""
    drop = 'segmentation' if kind == 'bbox' else 'bbox'
    return [{name: value for name, value in row.items() if name != drop} for row in results]


def official(content, results, kind, categories=None):
    """COCOeval as its users call it; the figures it prints, in their order."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(content)
        truth.createIndex()
        scorer = COCOeval(truth, truth.loadRes(copy.deepcopy(only(results, kind))), kind)
        if categories:
            scorer.params.catIds = categories
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return scorer.stats


@pytest.fixture(scope='module')
def lvis_sample():
    path = data('lvis/lvis_val_100.json')
    content = json.loads(path.read_text())
    categories = [one['id'] for one in content['categories']]
    return path, content, adversarial(content, 5, categories)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('protocol', ['standard', 'fixed'])
def test_lvis_equals_lvis_api(lvis_sample, monkeypatch, kind, protocol):
    # Its release calls np.float, which NumPy dropped.
    monkeypatch.setattr(np, 'float', float, raising=False)
    from lvis import LVIS, LVISEval, LVISResults

    path, _, results = lvis_sample
    truth = LVIS(str(path))
    limit = 300 if protocol == 'standard' else -1
    scorer = LVISEval(truth, LVISResults(truth, copy.deepcopy(only(results, kind)), max_dets=limit), kind)
    scorer.params.max_dets = limit
    scorer.run()
    expected = scorer.get_results()
    own = LvisTruth.read(str(path), masks=kind == 'segm')
    assert 0.05 < expected['AP'] < 0.9
    for backend in BACKENDS:
        got = lvis_figures(own, from_coco(results, own, kind), protocol, backend=backend)
        wanted = {name.partition('@')[0]: value for name, value in expected.items()}
        assert len(got) == 13
        say(
            f'LVIS {kind} {protocol} {backend}, {len(results):,} detections',
            [abs(wanted[name.partition('@')[0]] - value) for name, value in got.items()],
        )


@pytest.mark.parametrize('kind', KINDS)
def test_coco_figures_equal_pycocotools(lvis_sample, kind):
    path, content, results = lvis_sample
    crowds = {**content, 'annotations': [{**one, 'iscrowd': 0} for one in content['annotations']]}
    expected = official(crowds, results, kind)
    truth = read_truth(path, masks=kind == 'segm')
    found = found_of(results, truth, truth.category_numbers, kind == 'segm')
    assert 0.05 < expected[0] < 0.9
    for backend in BACKENDS:
        got = list(coco_figures(truth, found, kind, backend=backend).values())
        say(f'COCO on LVIS {kind} {backend}', np.abs(np.array(got) - expected).tolist())


def renamed(content):
    """The same objects without names."""
    return {**content, 'categories': [{'id': 1, 'name': 'object'}],
            'annotations': [{**one, 'category_id': 1} for one in content['annotations']]}  # fmt: skip


def coda_sample(name, tmp_path):
    """A file with masks, which the official ones do not have, and results with CODA's ids 1 to 43."""
    content = json.loads(data(f'coda/{name}').read_text())
    sizes = {one['id']: (one['height'], one['width']) for one in content['images']}
    for one in content['annotations']:
        x, y, w, h = one['bbox']
        one['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h * 0.7]]
    assert sizes
    path = tmp_path / name
    path.write_text(json.dumps(content))
    return path, content, adversarial(content, 9, range(1, 44))


def our_coda(path, results, kind, backend):
    truth = read_coda(path, '2022', kind == 'segm')
    check_coda_results(results, path, truth, [kind])
    return coda_figures(truth, named_found(results, truth, kind == 'segm'), kind, backend)


@pytest.mark.parametrize('kind', KINDS)
def test_coda_common_equals_the_official_way(tmp_path, kind):
    """Ids beyond the seven are dropped where names count, and all are 1 where not."""
    path, content, results = coda_sample('instance_val_common_300.json', tmp_path)
    named = official(content, [row for row in results if row['category_id'] <= 7], kind, list(range(1, 8)))
    plain = official(renamed(content), [{**row, 'category_id': 1} for row in results], kind)
    expected = {'AP_common': named[0], 'AP_agnostic': plain[0], 'AR_agnostic': plain[8]}
    assert 0.05 < named[0] < 0.95
    for backend in BACKENDS:
        got = our_coda(path, results, kind, backend)
        say(f'CODA common {kind} {backend}', [abs(got[name] - value) for name, value in expected.items()])


@pytest.mark.parametrize('kind', KINDS)
def test_coda_corner_cases_equal_the_official_way(tmp_path, kind):
    path, content, results = coda_sample('instance_val_agnostic_corner_300.json', tmp_path)
    plain = official(content, [{**row, 'category_id': 1} for row in results], kind)
    expected = {'AP_agnostic': plain[0], 'AR_agnostic': plain[8], 'AR_agnostic_corner': plain[8]}
    assert 0.05 < plain[8] < 0.95
    for backend in BACKENDS:
        got = our_coda(path, results, kind, backend)
        say(f'CODA corner {kind} {backend}', [abs(got[name] - value) for name, value in expected.items()])


def test_results_of_the_samples_are_taken(lvis_sample):
    path, content, results = lvis_sample
    truth = read_truth(path)
    names = {one['id']: one['name'] for one in content['categories']}
    check_results(results, 'results', truth.image_numbers, names, str(path), KINDS)
