"""tools/pseudo_label.py: runs of VL-SAM, files of earlier ones, mistakes, every documented command."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from doc_pages import commands_of
from mmengine.config import Config
from PIL import Image
from rule_vlm import draw
from tiny_coco import REPO, load_tool

from atss_ext.datasets.annotation_checks import check_annotations, read_annotations
from atss_ext.pseudo_labels import class_name
from atss_ext.vlsam.names.phrases import parse
from atss_ext.vlsam.world.scenes import SPEC

DOCUMENT = (REPO / 'docs/pseudo_labels.md').read_text(encoding='utf-8')
SIZE = (96, 128)
SCENES = {
    '1.png': {'red square': [(8, 8, 40, 40)], 'green square': [(80, 40, 112, 72)]},
    '2.png': {'blue square': [(4, 60, 28, 84)], 'green square': [(60, 30, 100, 80)]},
    '3.png': {'red square': [(20, 20, 60, 60)]},
    '4.png': {'blue square': [(30, 30, 60, 60)]},
}
CONFIG = """
_base_ = ['atss_ext::_base_/vlsam_runtime.py']
custom_imports = dict(imports=['rule_models'], allow_failed_imports=False)
model = dict(
    type='atss_ext.VLSAM', vlm=dict(type='atss_ext.{vlm}'), segmenter=dict(type='atss_ext.RuleSegmenter'),
    corners=False, questions='single')
"""
STUDY = 'tools/analysis/pseudo_study.py'
# What makes seconds of the minutes that the documented commands take, by how they begin.
TINY = {
    'make_shapes.py': ['--train-images', '16', '--val-images', '2'],
    'pseudo_label.py data/world': ['--cfg-options', 'questions=single', 'corners=False'],
    'train.py': ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1'],
    'vlsam.py': ['--quick', '--no-pictures'],
    'pseudo_label.py work_dirs': ['--min-count', '1'],
    'pseudo_study.py': ['--train-images', '2', '--val-images', '2', '--epochs', '1', '--seeds', '1'],
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / 'photos').mkdir()
    for name, scene in SCENES.items():
        Image.fromarray(draw(SIZE, scene)).save(tmp_path / 'photos' / name)
    for kind in ('RuleVLM', 'InterruptedVLM', 'FussyVLM'):
        (tmp_path / f'{kind}.py').write_text(CONFIG.format(vlm=kind))
    (tmp_path / 'classes.yaml').write_text('green square: []\nother: [red square, Blue Squares]\n')
    return tmp_path


def objects(path: Path) -> set[tuple]:
    """(image, class, x, y, width, height) of a COCO file."""
    content = json.loads(path.read_text())
    images = {image['id']: image['file_name'] for image in content['images']}
    names = {category['id']: category['name'] for category in content['categories']}
    return {
        (images[row['image_id']], names[row['category_id']], *map(round, row['bbox']))
        for row in content['annotations']
    }


def truth(**classes: str) -> set[tuple]:
    return {
        (file, classes.get(name.split()[0], name), x1, y1, x2 - x1, y2 - y1)
        for file, scene in SCENES.items()
        for name, places in scene.items()
        for x1, y1, x2, y2 in places
    }


def test_a_folder_becomes_a_training_set(folder, in_process, capfd):
    out = folder / 'data/pseudo'
    code, said = in_process('pseudo_label.py', folder / 'photos', '--config', folder / 'RuleVLM.py')
    assert code == 0, said
    parts = {name: out / f'{name}.json' for name in ('train', 'val')}
    assert objects(parts['train']) | objects(parts['val']) == truth()
    for path in parts.values():
        report = check_annotations(read_annotations(path), images=folder / 'photos')
        assert report.findings == ()
        assert report.counts['categories'] == 3
    assert json.loads((out / 'summary.json').read_text())['image_folder'] == str(folder / 'photos')
    # Other labels of the same images need no look at them: the models are not loaded again.
    code, said = in_process(
        'pseudo_label.py', folder / 'photos', '--config', folder / 'RuleVLM.py', '--classes',
        folder / 'classes.yaml', '--val-fraction', '0',
    )  # fmt: skip
    assert code == 0, said
    assert 'loading' not in said
    assert objects(parts['train']) == truth(red='other', blue='other')
    assert not parts['val'].exists()


def test_the_summary_is_printed_and_masks_are_those_of_vlsam(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    options = ['--classes', 'classes.yaml', '--others', 'drop', '--val-fraction', '0', '--out', 'set']
    load_tool('pseudo_label.py').main(['photos', '--config', 'RuleVLM.py', *options])
    assert capfd.readouterr().out.splitlines()[-6:] == [
        'images   4: 4 with labels, 0 without; 4 to train on, 0 to validate on',
        'boxes    6: 6 kept, 0 left out',
        'classes  2',
        '       2  green square  green square',
        '       4  other         red square, blue square',
        'written: set',
    ]
    source = {
        row['id']: row
        for row in json.loads((folder / 'set/vlsam/annotations.json').read_text())['annotations']
    }
    written = json.loads((folder / 'set/train.json').read_text())['annotations']
    assert [row['id'] for row in written] == sorted(source)
    for row in written:
        assert row['segmentation'] == source[row['id']]['segmentation']


def test_an_interrupted_run_keeps_what_is_finished(folder, in_process, monkeypatch):
    """The first run is given up at the second image; the next one begins there."""
    import rule_models

    options = (
        'pseudo_label.py',
        folder / 'photos',
        '--config',
        folder / 'InterruptedVLM.py',
        '--out',
        folder / 'o',
    )
    code, said = in_process(*options)
    assert code == 130
    assert not (folder / 'o/train.json').exists()
    asked = []
    patient = lambda self, image: asked.append(1) or super(rule_models.InterruptedVLM, self)._answer(image)  # noqa: E731
    monkeypatch.setattr(rule_models.InterruptedVLM, '_answer', patient)
    code, said = in_process(*options, '--val-fraction', '0')
    assert code == 0, said
    assert len(asked) == 3
    assert objects(folder / 'o/train.json') == truth()


def test_images_that_failed_are_left_out_and_said(folder, in_process):
    """3.png has no blue (a bug in the model), 1.png neither, 4.png no green."""
    with pytest.raises(SystemExit) as end:
        in_process(
            'pseudo_label.py', folder / 'photos', '--config', folder / 'FussyVLM.py', '--val-fraction', '0',
            '--out', folder / 'o',
        )  # fmt: skip
    assert end.value.code == 1
    assert objects(folder / 'o/train.json') == {one for one in truth() if one[0] == '2.png'}


@pytest.fixture(scope='module')
def annotations() -> dict:
    """Two images with an object each, as tools/vlsam.py writes them."""
    rows = [
        {
            'id': number, 'image_id': number, 'category_id': number, 'bbox': [1, 1, 9, 9], 'area': 81,
            'iscrowd': 0, 'score': 0.5, 'name': name,
        }
        for number, name in ((1, 'Dog'), (2, 'dogs'))
    ]  # fmt: skip
    return {
        'images': [{'id': n, 'file_name': f'{n}.png', 'width': 128, 'height': 96} for n in (1, 2)],
        'annotations': rows,
        'categories': [{'id': row['id'], 'name': row['name']} for row in rows],
    }


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['missing', '--config', 'RuleVLM.py'], 'missing does not exist'),
        (['photos'], 'no config says what looks at photos; give --config'),
        (['photos', '--config', 'Rule.py'], 'Rule.py does not exist'),
        (['found.json', '--config', 'RuleVLM.py'], 'found.json is what VL-SAM found already'),
        (['found.json'], 'nothing beside found.json says where its images are; give --images DIR'),
        (['found.json', '--images', 'none'], 'image folder none does not exist'),
        (['unknown.json', '--images', 'photos'], 'an image of unknown.json is missing, first photos/9.png'),
        (['cut.json', '--images', 'photos'], 'cut.json is no valid JSON'),
        (['found.json', '--images', 'photos', '--classes', 'no.yaml'], 'merge map no.yaml does not exist'),
        (['found.json', '--images', 'photos', '--classes', 'twice.yaml'], "the name 'DOGS' in two classes"),
        (['found.json', '--images', 'photos', '--others', 'drop'], '--others drop needs classes'),
        (['found.json', '--images', 'photos', '--encoder', 'ClipEncoder'], '--encoder needs classes'),
        (['found.json', '--images', 'photos', '--score-thr', '2'], 'score_thr must be from 0 to 1, but is 2'),
        (['found.json', '--images', 'photos', '--score-thr', '0.6'], 'none of the 2 boxes is left'),
        (['drive.mp4', '--config', 'RuleVLM.py'], 'drive.mp4 is a video'),
        (['found.json', '--images', 'photos', '--restart'], 'VL-SAM found already; leave --restart away'),
        (['found.json', '--images', 'photos', '--recursive'], 'VL-SAM found already; leave --recursive away'),
        (['found.json', '--images', 'photos', '--device', 'cpu'], 'found already; leave --device away'),
        (['found.json', '--images', 'photos', '--cfg-options', 'a=1'], 'already; leave --cfg-options away'),
        (['photos', '--config', 'RuleVLM.py', '--images', 'photos'], '--images is for an annotations.json'),
        (
            ['found.json', '--images', 'photos', '--classes', 'classes.yaml', '--encoder-threshold', '0.5'],
            '--encoder-threshold 0.5 is of an encoder; name it with --encoder',
        ),
        (
            ['found.json', '--images', 'photos', '--encoder-model', 'x'],
            '--encoder-model x is of an encoder; name it with --encoder',
        ),
        (
            ['found.json', '--images', 'photos', '--out', 'classes.yaml'],
            '--out classes.yaml: classes.yaml/train.json cannot be written',
        ),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(folder, in_process, monkeypatch, annotations, args, words):
    unknown = {
        **annotations,
        'images': [annotations['images'][0], {**annotations['images'][1], 'file_name': '9.png'}],
    }
    for name, text in {
        'found.json': json.dumps(annotations), 'unknown.json': json.dumps(unknown),
        'cut.json': json.dumps(annotations)[:-9], 'twice.yaml': 'dog: []\ncat: [DOGS]\n', 'drive.mp4': 'x',
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    monkeypatch.chdir(folder)
    code, said = in_process('pseudo_label.py', *args)
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith('error: ')
    assert words in last
    assert 'Traceback' not in said


@pytest.mark.parametrize('name', ['train.json', 'val.json', 'summary.json'])
def test_annotations_made_by_hand_stay(folder, in_process, annotations, name):
    """Those of docs/own_data.md, and the command's own input; nothing is looked at before."""
    mine = folder / 'my_data'
    mine.mkdir()
    (mine / name).write_text(json.dumps(annotations))
    found = folder / 'found.json'
    found.write_text(json.dumps(annotations))
    photos = folder / 'photos'
    lost = f'{mine / name} was not written by tools/pseudo_label.py and would be lost; choose another --out'
    read = f'--out {mine}: {mine / name} is a file that is read; choose another name'
    for args, words in (
        ([photos, '--config', folder / 'RuleVLM.py'], lost),
        ([found, '--images', photos], lost),
        ([mine / name, '--images', photos], read),
        ([found, '--images', photos, '--classes', mine / name], read),
    ):
        code, said = in_process('pseudo_label.py', *args, '--out', mine)
        assert (code, said) == (2, f'error: {words}\n')
    assert [path.name for path in mine.iterdir()] == [name]
    assert json.loads((mine / name).read_text()) == annotations


def test_the_words_of_the_page_are_those_of_the_code():
    examples = re.search(r'Names that differ in (?s:.*?)classes:', DOCUMENT)[0]
    (first, second), (counted, of_it, again, own) = [
        re.findall(r'\*(.+?)\*', part) for part in examples.split('Words that')
    ]
    assert class_name(first) == class_name(second) == 'traffic light'
    assert (class_name(counted), again) == (of_it, counted)
    assert [mention.name for mention in parse(counted)] == [own]


def test_a_file_of_vlsam_knows_its_images_and_case_does_not_part_classes(folder, in_process, annotations):
    (folder / 'run').mkdir()
    (folder / 'run/annotations.json').write_text(json.dumps(annotations))
    (folder / 'run/input.txt').write_text(str(folder / 'photos'))
    code, said = in_process('pseudo_label.py', folder / 'run/annotations.json', '--val-fraction', '0.5')
    assert code == 0, said
    for name in ('train', 'val'):
        (found,) = objects(folder / f'data/pseudo/{name}.json')
        assert found[1:] == ('dog', 1, 1, 9, 9)


def test_the_config_trains_on_the_classes_of_the_set(folder, in_process, annotations, monkeypatch):
    (folder / 'found.json').write_text(json.dumps(annotations))
    monkeypatch.setenv('PSEUDO_ROOT', str(folder / 'set'))
    code, said = in_process(
        'pseudo_label.py', folder / 'found.json', '--images', folder / 'photos', '--out', folder / 'set',
        '--val-fraction', '0.5',
    )  # fmt: skip
    assert code == 0, said
    cfg = Config.fromfile(REPO / 'configs/pseudo/atss_r18_shapes_pseudo.py')
    assert cfg.model.bbox_head.num_classes == 1
    for part in ('train', 'val'):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert dataset.metainfo.classes == ('dog',)
        assert dataset.ann_file == f'{folder}/set/{part}.json'
        assert dataset.data_prefix.img == f'{folder}/photos/'
    monkeypatch.setenv('PSEUDO_ROOT', str(folder / 'none'))
    code, said = in_process('train.py', REPO / 'configs/pseudo/atss_r18_shapes_pseudo.py')
    assert code == 2
    assert f'annotation file {folder}/none/train.json does not exist' in said


def test_the_documented_config_reads_the_set(tmp_path, monkeypatch):
    (snippet,) = re.findall(r'```python\n(.*?)```', DOCUMENT, flags=re.DOTALL)
    (tmp_path / 'data/photos-pseudo').mkdir(parents=True)
    summary = {'classes': {'cat': {}, 'dog': {}}, 'image_folder': '/photos'}
    (tmp_path / 'data/photos-pseudo/summary.json').write_text(json.dumps(summary))
    (tmp_path / 'own.py').write_text(snippet)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(tmp_path / 'own.py')
    assert cfg.model.bbox_head.num_classes == 2
    assert cfg.model.backbone.depth == 50
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert dataset.type == 'CocoDataset'
        assert dataset.metainfo.classes == ('cat', 'dog')
        assert (dataset.data_root, dataset.data_prefix.img) == ('', '/photos/')
        file = 'data/photos-pseudo/' + ('train.json' if part == 'train' else 'val.json')
        assert dataset.ann_file == file
        if part != 'train':
            assert cfg[f'{part}_evaluator'].ann_file == file


LINES = commands_of('docs/pseudo_labels.md')


@pytest.fixture
def documented(tmp_path, in_process, monkeypatch):
    """Run a documented command in this process, as it stands and smaller, below a folder with configs."""
    (tmp_path / 'configs').symlink_to(REPO / 'configs')
    for place in ('datasets', 'analysis'):  # what a script finds beside itself
        monkeypatch.syspath_prepend(str(REPO / 'tools' / place))

    def run(line: str) -> None:
        words = shlex.split(line)
        monkeypatch.delenv('PSEUDO_ROOT', raising=False)
        while '=' in words[0]:
            monkeypatch.setenv(*words.pop(0).split('='))
        python, script, *words = words
        assert python == 'python'
        extra = next((more for start, more in TINY.items() if f'/{start}' in line), [])
        code, said = in_process(script.removeprefix('tools/'), *words, *extra)
        assert code == 0, f'{line}\n{said}'

    return run


def test_the_documented_commands_go_from_pictures_to_a_detector(tmp_path, documented):
    """With the real small models; the study has a test of its own."""
    (classes,) = re.findall(r'```yaml\n(.*?)```', DOCUMENT, flags=re.DOTALL)
    (tmp_path / 'classes.yaml').write_text(classes)
    for line in LINES:
        if STUDY not in line:
            documented(line)
        if 'make_shapes.py' in line:
            shutil.copytree(tmp_path / 'data/world/train/images', tmp_path / 'photos')
    spec = json.loads((tmp_path / 'data/world/train/manifest.json').read_text())['spec']
    assert spec == json.loads(json.dumps(dataclasses.asdict(SPEC)))
    for part in ('train', 'val'):
        content = read_annotations(tmp_path / f'data/pseudo/{part}.json')
        assert check_annotations(content, images=tmp_path / 'photos').findings == ()
        assert all(row['score'] >= 0.5 for row in content['annotations'])
    # The models know what they look at: most labels are those of the drawing.
    truth_file = tmp_path / 'data/world/train/annotations.json'
    right, boxes = agreement(tmp_path / 'data/pseudo/vlsam/annotations.json', truth_file)
    assert right > 0.7 * boxes > 5
    assert (tmp_path / 'work_dirs/atss_r18_shapes_pseudo/epoch_1.pth').is_file()
    # Without a part to validate on: the set is whole, and the training ends.
    assert not (tmp_path / 'data/pseudo-all/val.json').exists()
    assert len(read_annotations(tmp_path / 'data/pseudo-all/train.json')['images']) > 12
    assert (tmp_path / 'work_dirs/pseudo-all/epoch_1.pth').is_file()
    photos = json.loads((tmp_path / 'data/photos-pseudo/summary.json').read_text())
    assert {'round thing'} < set(photos['classes']) <= {'round thing', *SPEC.category_names}
    assert not any('circle' in name for name in photos['classes'])


def agreement(found_file: Path, truth_file: Path) -> tuple[int, int]:
    """How many found objects are of a name that their picture shows, and how many there are."""
    found, true = [{(row[0], row[1]) for row in objects(path)} for path in (found_file, truth_file)]
    return len(found & true), len(found)


@pytest.mark.slow
def test_the_study_writes_the_table(tmp_path, documented):
    (line,) = [line for line in LINES if STUDY in line]
    (tmp_path / 'docs').mkdir()
    documented(line)
    text = (tmp_path / 'docs/pseudo_labels.md').read_text()
    rows = [row for row in text.splitlines() if row.startswith('| ')]
    assert len(rows) == 4
    assert re.fullmatch(r'\| true labels \| \d+ \| 100\.0 \| 100\.0( \| \d+\.\d){3} \|', rows[1])
    # A training that is finished is not made again.
    results = {
        path: path.stat().st_mtime_ns for path in tmp_path.glob('work_dirs/pseudo_study/runs/*/result.json')
    }
    assert len(results) == 3
    documented(line)
    assert {path: path.stat().st_mtime_ns for path in results} == results


def test_the_page_has_the_table_of_the_study():
    rows = [row for row in DOCUMENT.splitlines() if row.startswith(('| true labels', "| VL-SAM's labels"))]
    assert len(rows) == 3
    assert STUDY in DOCUMENT
