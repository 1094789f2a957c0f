"""tools/evaluate.py: the figures of the metrics from a result file, and a sentence for every wrong file."""

import json
import re
import resource
import shlex
import subprocess
import sys

import pytest
import torch
from doc_pages import commands_of
from ports import free_port
from tiny_coco import REPO, environment

from atss_ext.cli.targets import writing
from atss_ext.errors import UserError
from atss_ext.evaluation import backend as choice

EVALUATORS = """
test_evaluator = [
    dict(type='atss_ext.CocoMetric', ann_file=data_root + 'val.json'),
    dict(type='atss_ext.AgnosticRecall', ann_file=data_root + 'val.json', limits=(1, 100))]
"""
BOX = [10, 10, 30, 20]


def annotation(number, image, category, box, **more):
    return {'id': number, 'image_id': image, 'category_id': category, 'bbox': box, 'area': box[2] * box[3],
            'iscrowd': 0, **more}  # fmt: skip


def detection(image=1, category=1, box=BOX, score=0.5, **more):
    return {'image_id': image, 'category_id': category, 'bbox': box, 'score': score, **more}


def write(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def evaluate(in_process, tmp_path):
    """Score results with a file; returns the figures, or what was said."""

    def run(results, ann, *options):
        paths = write(tmp_path, 'results.json', results), write(tmp_path, 'ann.json', ann)
        out = tmp_path / 'deep' / 'figures.json'
        code, said = in_process('evaluate.py', paths[0], '--ann', paths[1], '--json', out, *options)
        return json.loads(out.read_text()) if code == 0 else (code, said)

    return run


def online(work_dir):
    """The figures of a run of tools/test.py, from its log."""
    (log,) = work_dir.glob('*/*.json')
    return json.loads(log.read_text().splitlines()[-1])


def weights(tiny):
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import atss_ext  # noqa: F401

    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(tiny.config).model)
    model.init_weights()
    path = tiny.root / 'weights.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def make_truth(tiny, found):
    """Write a file whose objects are half of the detections, moved by some pixels."""
    content = tiny.coco('val')
    objects = []
    for number, one in enumerate(found[::2], 1):
        x, y, w, h = one['bbox']
        objects.append(annotation(number, one['image_id'], one['category_id'], [x + number % 4, y, w, h]))
    tiny.write('val.json', {**content, 'annotations': objects})


def test_offline_online_and_two_processes_agree(tiny, in_process, tmp_path):
    """test.py --out, then evaluate.py, gives the run's own figures; so do two processes with three images."""
    tiny.write('tiny.py', tiny.config.read_text() + EVALUATORS)
    content = tiny.coco('val')
    content['images'].append({'id': 3, 'file_name': 'train_0.png', 'width': 64, 'height': 64})
    tiny.write('val.json', content)
    checkpoint, out, again = weights(tiny), tmp_path / 'out.json', tmp_path / 'again.json'
    code, said = in_process(
        'test.py', tiny.config, checkpoint, '--out', out, '--work-dir', tmp_path / 'first'
    )
    assert code == 0, said
    make_truth(tiny, json.loads(out.read_text()))
    code, said = in_process(
        'test.py', tiny.config, checkpoint, '--out', again, '--work-dir', tmp_path / 'one'
    )
    assert code == 0, said
    wanted = online(tmp_path / 'one')
    assert 0.05 < wanted['coco/bbox_AP'] < 0.95
    assert 0.05 < wanted['agnostic/bbox_AR@100'] < 0.95

    for kind, prefix in (('coco', 'coco'), ('recall', 'agnostic')):
        figures = tmp_path / f'{kind}.json'
        limits = ['--limits', 1, 100] if kind == 'recall' else []
        ann = tiny.root / 'val.json'
        code, said = in_process(
            'evaluate.py', again, '--ann', ann, '--kind', kind, '--json', figures, *limits
        )
        assert code == 0, said
        offline = {f'{prefix}/{name}': value for name, value in json.loads(figures.read_text()).items()}
        assert offline == {name: value for name, value in wanted.items() if name.startswith(prefix)}

    command = ['bash', str(REPO / 'tools/dist_test.sh'), str(tiny.config), str(checkpoint), '2', '--work-dir',
               str(tmp_path / 'two')]  # fmt: skip
    env = environment(PYTHON=sys.executable, PORT=free_port())
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    both = online(tmp_path / 'two')
    assert {name: both[name] for name in wanted if '_' in name and '/' in name} == {
        name: value for name, value in wanted.items() if '_' in name and '/' in name
    }


def plain_file(**more):
    return {'images': [{'id': n, 'height': 64, 'width': 64, **more} for n in (1, 2)],
            'annotations': [annotation(1, 1, 1, BOX)],
            'categories': [{'id': 1, 'name': 'person', 'frequency': 'r'},
                           {'id': 7, 'name': 'dragon', 'frequency': 'f'}]}  # fmt: skip


@pytest.mark.parametrize('backend', ['fast', 'reference'])
def test_coco_of_boxes_and_masks(evaluate, backend):
    """A plain file from elsewhere; its masks are polygons, and miss a half that its boxes do not."""
    ann = plain_file()
    ann['annotations'][0]['segmentation'] = [[10, 10, 40, 10, 40, 30, 10, 30]]
    half = [[10, 10, 40, 10, 40, 22, 10, 22]]
    got = evaluate([detection(segmentation=half)], ann, '--metric', 'bbox', 'segm', '--backend', backend)
    assert (got['bbox_AP'], got['segm_AP'], got['segm_AP50']) == pytest.approx((1, 0.3, 1))


def test_no_detections_are_zero(evaluate):
    assert evaluate([], plain_file())['bbox_AP'] == 0


def test_names_of_their_categories_are_taken(evaluate):
    assert evaluate([detection(name='person')], plain_file())['bbox_AP'] == pytest.approx(1)


def test_classes_of_a_dataset(evaluate):
    """The dragon, which COCO does not have, is neither looked for nor found."""
    ann = plain_file()
    ann['annotations'].append(annotation(2, 2, 7, BOX))
    found = [detection(), detection(2, 7, [0, 0, 5, 5], 0.9)]
    assert evaluate(found, ann)['bbox_AP'] == pytest.approx(0.5)
    assert evaluate(found, ann, '--classes', 'mmdet.CocoDataset')['bbox_AP'] == pytest.approx(1)


def test_recall_needs_no_categories(evaluate):
    found = [{'image_id': 1, 'name': 'a thing', 'bbox': BOX, 'score': 0.5}]
    assert evaluate(found, plain_file(), '--kind', 'recall', '--limits', '5')['bbox_AR@5'] == 1


@pytest.mark.parametrize('backend', ['fast', 'reference'])
def test_lvis_and_fixed_ap(evaluate, backend):
    """A detection where nobody looked does no harm; 301 better ones are a limit, but not in fixed AP."""
    ann = plain_file(neg_category_ids=[], not_exhaustive_category_ids=[])
    found = [detection(2, 1, score=0.9), *([detection(1, 7, score=0.8)] * 300), detection()]
    got = evaluate(found, ann, '--kind', 'lvis', '--fixed', '--backend', backend)
    assert got['bbox_APr'] == 0
    assert got['bbox_fixed_APr'] == pytest.approx(1)


@pytest.mark.parametrize('backend', ['fast', 'reference'])
def test_coda_by_id_and_by_name(evaluate, backend):
    ann = {**plain_file(), 'categories': [{'id': 5, 'name': 'car'}, {'id': 9, 'name': 'dog'}],
           'annotations': [annotation(1, 1, 5, BOX), annotation(2, 2, 9, BOX, corner_case=True)]}  # fmt: skip
    other = {'image_id': 1, 'name': 'car', 'bbox': BOX, 'score': 0.4}
    options = '--kind', 'coda', '--backend', backend
    got = evaluate([other, detection(2, 9)], ann, *options)
    names = 'bbox_AP_common', 'bbox_AP_agnostic', 'bbox_AR_agnostic_corner'
    assert [got[name] for name in names] == pytest.approx([1, 1, 1])
    assert evaluate([{**other, 'name': 'cart'}], ann, *options)['bbox_AP_common'] == 0


@pytest.mark.parametrize(
    ('results', 'options', 'sentence'),
    [
        ({'images': [], 'annotations': []}, (), "a list of detections, but is an object with 'images'"),
        ('[{', (), 'is no valid JSON'),
        ([[1, 2]], (), 'detection 0 of {} is [1, 2]; an object with image_id'),
        ([detection(), detection(3)], (), 'detection 1 of {} is of image 3, which '),
        ([detection(category=0)], (), 'detection 0 of {} has the category_id 0, which '),
        ([detection(category=0)], ('--kind', 'lvis'), 'detection 0 of {} has the category_id 0, which '),
        ([detection(category=0)], ('--kind', 'coda'), 'detection 0 of {} has the category_id 0, which '),
        ([detection(name='a dog')], (), "has the name 'a dog', but its category 1 is 'person'; bring free"),
        ([detection(name='a dog')], ('--kind', 'lvis'), "has the name 'a dog', but its category 1"),
        ([detection(box=[1, 2, 3])], (), 'has the box [1, 2, 3]; it must be four finite numbers'),
        ([detection(box=[9, 9, -3, 2])], (), 'of negative size; it must be [x, y, width, height]'),
        ([detection(score='0.5')], (), "has the score '0.5'; it must be a finite number"),
        ([detection()], ('--metric', 'segm'), 'has the segmentation None, which masks are scored with'),
        ([detection()], ('--fixed',), '--fixed: fixed AP is of LVIS, but --kind is coco'),
        ([detection()], ('--layout', 'base'), '--layout: layouts are of CODA, but --kind is coco; leave one'),
        ([detection()], ('--limits', '7'), '--limits: limits are of recall, but --kind is coco; leave one'),
        ([detection()], ('--kind', 'recall', '--limits', '0'), '--limits 0: it must be at least 1'),
        ([detection(category=-1)], ('--kind', 'coda'), "-1, which"),
        ([detection(category=None)], ('--kind', 'coda'), "has the category_id None, which"),
        ([detection(category=True)], ('--kind', 'coda'), "has the category_id True, which"),
        ([detection(category=[3])], ('--kind', 'coda'), "has the category_id [3], which"),
        ([detection(category=1.0)], ('--kind', 'coda'), 'the category_id 1.0, which must be a whole number'),
        ([detection(category=1.0)], (), 'has the category_id 1.0, which must be a whole number or a text'),
        ([detection(1.0)], (), 'detection 0 of {} has the image_id 1.0, which must be a whole number or'),
        ([detection()], ('--classes', 'NoSet'), '--classes NoSet: no registered dataset with classes'),
    ],
)  # fmt: skip
def test_wrong_files_get_a_sentence(evaluate, tmp_path, results, options, sentence):
    ann = plain_file(neg_category_ids=[], not_exhaustive_category_ids=[])
    ann['annotations'][0]['segmentation'] = [[10, 10, 40, 10, 40, 30, 10, 30]]
    code, said = evaluate(results, ann, *options)
    assert code == 2
    assert said.startswith('error: ')
    assert len(said.splitlines()) == 1
    assert sentence.format(tmp_path / 'results.json') in said


AGNOSTIC = {**plain_file(), 'categories': [{'id': 1, 'name': 'corner_case_object'}],
            'annotations': [annotation(1, 1, 1, BOX), annotation(2, 2, 1, BOX)]}  # fmt: skip


@pytest.mark.parametrize('category', [{'category_id': 43}, {'category_id': 4, 'name': 'car'}, {}])
def test_a_file_without_names_takes_any_ids_of_coda(evaluate, in_process, tmp_path, category):
    """CODA's own script calls everything 1 there."""
    row = {'image_id': 1, 'bbox': BOX, 'score': 0.5, **category}
    got = evaluate([row], AGNOSTIC, '--kind', 'coda', '--metric', 'bbox')
    assert got['bbox_AR_agnostic_corner'] == pytest.approx(0.5)
    assert got['bbox_AP_agnostic'] == pytest.approx(51 / 101)


@pytest.mark.parametrize('backend', ['fast', 'reference'])
def test_ids_that_a_coda_file_does_not_have_are_other_classes(evaluate, in_process, tmp_path, backend):
    """A bench (30) is none of the seven, and no error of a car; as a thing without a name it is found."""
    ann = {**plain_file(), 'categories': [{'id': 4, 'name': 'car'}],
           'annotations': [annotation(1, 1, 4, BOX), annotation(2, 2, 4, BOX)]}  # fmt: skip
    found = [detection(2, 30, score=0.9), detection(1, 4)]
    got = evaluate(found, ann, '--kind', 'coda', '--backend', backend)
    assert got['bbox_AP_common'] == pytest.approx(51 / 101)
    assert got['bbox_AP_agnostic'] == pytest.approx(1)
    paths = tmp_path / 'results.json', '--ann', tmp_path / 'ann.json'
    code, said = in_process('evaluate.py', *paths, '--kind', 'coda')
    assert (code, said.splitlines()[0]) == (
        0, f'note: 1 detections have ids that {paths[2]} does not have; they count as other classes',
    )  # fmt: skip


def test_layout_of_coda(evaluate):
    ann = {
        **plain_file(),
        'categories': [{'id': 4, 'name': 'car'}],
        'annotations': [annotation(1, 1, 4, BOX)],
    }
    base = evaluate([detection(category=4)], ann, '--kind', 'coda', '--layout', 'base')
    assert base['bbox_CORNER_mAR'] == pytest.approx(1)
    newer = evaluate([detection(category=4)], ann, '--kind', 'coda', '--layout', '2022')
    assert newer == evaluate([detection(category=4)], ann, '--kind', 'coda')
    assert newer['bbox_Sum'] == pytest.approx(3)
    assert 'bbox_CORNER_mAR' not in newer


@pytest.mark.parametrize(
    ('out', 'sentence'),
    [
        ('', '--json {} is a folder; name a file'),
        ('results.json/a.json', '--json {} cannot be written, because {folder}/results.json is no folder'),
        ('ann.json', '--json {} is a file that is read; choose another name'),
        ('x' * 300, '--json {} cannot be written (File name too long)'),
        ('/dev/full', '--json /dev/full is no regular file; choose another name'),
        ('a_link', '--json {} is a file that is read; choose another name'),
        ('round', '--json {} cannot be written'),
    ],
)  # fmt: skip
def test_where_nothing_can_be_written_nothing_is_scored(evaluate, in_process, tmp_path, out, sentence):
    evaluate([detection()], plain_file())
    (tmp_path / 'a_link').symlink_to('results.json')
    (tmp_path / 'round').symlink_to('round')
    paths = tmp_path / 'results.json', '--ann', tmp_path / 'ann.json'
    code, said = in_process('evaluate.py', *paths, '--json', tmp_path / out)
    assert code == 2
    assert said.startswith('error: ' + sentence.format(tmp_path / out, folder=tmp_path))
    assert len(said.splitlines()) == 1
    assert json.loads((tmp_path / 'ann.json').read_text()) == plain_file()


def test_a_place_that_turns_out_to_be_none_is_said_after_the_figures(evaluate, in_process, tmp_path):
    """The system lets nobody make a folder in /proc, but only says so when it is asked to."""
    evaluate([detection()], plain_file())
    paths = tmp_path / 'results.json', '--ann', tmp_path / 'ann.json'
    code, said = in_process('evaluate.py', *paths, '--json', '/proc/none/figures.json')
    assert code == 2
    assert re.search(r'^error: .*/proc/none/figures.json cannot be written \(', said, flags=re.MULTILINE)
    assert 'config' not in said


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path):
    """A limit on the size of files stands for the disk; the link stays one."""
    old, link = tmp_path / 'old.json', tmp_path / 'link.json'
    old.write_text('{}')
    link.symlink_to(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError) as caught, writing(link) as file:
            file.write('x' * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f'{link} cannot be written (File too large); choose another place'
    assert (old.read_text(), sorted(tmp_path.iterdir())) == ('{}', [link, old])
    with writing(link) as file:
        file.write('[]')
    assert (old.read_text(), link.is_symlink()) == ('[]', True)


def test_it_says_what_it_scores(evaluate, in_process, tmp_path):
    evaluate([detection()], plain_file(neg_category_ids=[], not_exhaustive_category_ids=[]))
    paths = tmp_path / 'results.json', '--ann', tmp_path / 'ann.json'
    for kind, hows, options in (
        ('coco', ['bbox'], ()),
        ('lvis', ['bbox, standard', 'bbox, fixed'], ('--fixed',)),
        ('coda', ['bbox'], ()),
        ('recall', ['bbox'], ()),
    ):
        code, said = in_process('evaluate.py', *paths, '--kind', kind, *options)
        assert code == 0
        before = [f'{kind}: scoring 2 images, 1 detections, {how} ...' for how in hows]
        assert said.splitlines()[::2] == before
        after = [re.sub(r'\d+\.\d s', 'T', line) for line in said.splitlines()[1::2]]
        assert after == [f'{kind}: scored {how} in T' for how in hows]


def test_without_the_fast_library(evaluate, in_process, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, 'fast_library', lambda: None)
    assert evaluate([detection()], plain_file())['bbox_AP'] == pytest.approx(1)
    code, said = in_process('evaluate.py', tmp_path / 'results.json', '--ann', tmp_path / 'ann.json')
    assert (code, said.splitlines()[0]) == (0, f'note: {choice.MISSING}')
    assert said.count('note: ') == 1
    code, said = evaluate([detection()], plain_file(), '--backend', 'fast')
    assert code == 2
    assert said.startswith("error: --backend fast: backend='fast' needs hotcoco")


def test_the_command_of_the_docs_runs(in_process, tmp_path):
    (line,) = commands_of('docs/evaluation.md')
    (tmp_path / 'results.json').write_text(json.dumps([detection()]))
    truth = {
        'images': [{'id': 1, 'file_name': '1.png', 'height': 64, 'width': 64}],
        'annotations': [annotation(1, 1, 1, BOX)],
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    (tmp_path / 'instances_val2017.json').write_text(json.dumps(truth))
    _, script, *options = shlex.split(line)
    code, _ = in_process(script.removeprefix('tools/'), *options, '--json', 'figures.json')
    assert code == 0
    figures = json.loads((tmp_path / 'figures.json').read_text())
    assert figures['bbox_AP'] == pytest.approx(1.0)
