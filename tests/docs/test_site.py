"""The pages as a site, and the commands of the pages that no other test runs."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from doc_pages import ROOT, blocks_of, commands_of
from mmengine.config import Config
from PIL import Image
from warm import run_warm

from atss_ext.ops import native
from atss_ext.registry import MODELS

DOCS = ROOT / 'docs'
# Page -> the test that runs its commands; of the README's commands a page may repeat any.
RUN_BY = {
    'README.md': 'tests/docs/test_readme.py',
    'docs/vlsam.md': 'tests/docs/test_readme.py',
    'docs/vlsam_world.md': 'tests/docs/test_readme.py',
    'docs/assignment.md': 'tests/tools/test_show_assignment.py',
    'docs/datasets.md': 'tests/datasets/test_documented_commands.py',
    'docs/error_report.md': 'tests/tools/test_error_report.py',
    'docs/evaluation.md': 'tests/tools/test_evaluate_tool.py',
    'docs/paper.md': 'tests/tools/test_paper_page.py',
    'docs/paper_tables.md': 'tests/tools/test_paper_table.py',
    'docs/training.md': 'tests/tools/test_training_page.py',
    'docs/gpu_jobs.md': 'tests/tools/test_dist_docs.py',
    'docs/pseudo_labels.md': 'tests/tools/test_pseudo_label.py',
    'docs/sharing.md': 'tests/deploy/test_sharing_page.py',
    'docs/webui.md': 'tests/webui/test_serving.py',
    'docs/own_data.md': 'tests/docs/test_site.py',
    'docs/troubleshooting.md': 'tests/docs/test_site.py',
}


# Hours of measuring, which tests run with --quick: page -> its programs and the test of each.
MEASURED_BY = {
    'docs/attention.md': {'attention_flow.py': 'test_attention_benchmark.py'},
    'docs/benchmarks.md': {
        'run.py': 'test_benchmarks.py',
        'assigners.py': 'test_assigners_benchmark.py',
        'gpu_check.sh': 'test_benchmarks.py',
        'render.py': 'test_benchmarks.py',
    },
}


def test_every_page_with_commands_is_run_by_a_test():
    known = set(commands_of('README.md')) | set(commands_of('docs/vlsam.md'))
    for page in [ROOT / 'README.md', *sorted(DOCS.glob('*.md'))]:
        name = page.relative_to(ROOT).as_posix()
        if name in RUN_BY:
            test = (ROOT / RUN_BY[name]).read_text()
            assert re.search(rf"commands_of\([^)]*'{name}'", test), f'{RUN_BY[name]} does not take {name}'
        elif name in MEASURED_BY:
            programs = {Path(line.removeprefix('python ').split()[0]).name for line in commands_of(name)}
            assert programs == set(MEASURED_BY[name])
            for program, test in MEASURED_BY[name].items():
                assert program in (ROOT / 'tests/tools' / test).read_text(), f'{test} does not run {program}'
        else:
            assert set(commands_of(name)) <= known, f'nothing runs the commands of {name}'


def test_options_of_measured_commands_are_the_tools(tmp_path):
    lines = [line for name in MEASURED_BY for line in commands_of(name)]
    assert [line for line in lines if not line.startswith('python ')] == ['tools/gpu_check.sh']
    for line in lines:
        if line == 'tools/gpu_check.sh':
            continue
        program, *rest = shlex.split(line)[1:]
        done = subprocess.run(
            [sys.executable, ROOT / program, '--help'],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        for word in rest:
            if word.startswith('--'):
                assert re.search(rf'{word}\b', done.stdout), f'{program} has no {word}'


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Path:
    """Built as ``make docs`` does."""
    out = tmp_path_factory.mktemp('site')
    recipe = re.search(r'^docs: env\n\t@\$\(RUN\) (-m sphinx .*) docs work_dirs/docs', *MAKEFILE)
    done = subprocess.run(
        [sys.executable, *recipe.group(1).split(), 'docs', str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


MAKEFILE = (ROOT / 'Makefile').read_text(), re.MULTILINE


def test_the_site_has_every_page_and_the_docstrings(site):
    pages = {page.stem for page in DOCS.glob('*.md')}
    assert {page.stem for page in site.glob('*.html')} >= pages
    start = (site / 'index.html').read_text()
    assert all(f'href="{name}.html"' in start for name in pages - {'index'})
    ops = (site / 'ops.html').read_text()
    assert 'id="atss_ext.ops.atss_assign"' in ops
    assert 'offsets' in ops
    assert 'thresholds' in ops


def test_a_broken_link_fails_the_build(tmp_path):
    (tmp_path / 'conf.py').write_text((DOCS / 'conf.py').read_text())
    (tmp_path / 'index.md').write_text('# Title\n\n[nowhere](nowhere.md)\n')
    command = [sys.executable, '-m', 'sphinx', '--nitpicky', '--fail-on-warning', '--quiet']
    done = subprocess.run([*command, tmp_path, tmp_path / 'out'], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'nowhere.md' in done.stderr


def test_nothing_on_the_site_is_fetched_from_elsewhere(site):
    for page in site.glob('*.html'):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"', page.read_text())
        assert not [url for url in loaded if '//' in url], page.name


def test_the_python_of_the_ops_page_runs(tmp_path, capsys):
    (snippet,) = blocks_of('docs/ops.md', 'python')
    (tmp_path / 'snippet.py').write_text(snippet)
    runpy.run_path(str(tmp_path / 'snippet.py'))
    assert capsys.readouterr().out == '[[0, 1, 0]]\n'


@pytest.mark.parametrize('number', range(2))
def test_the_configs_of_the_page_resolve_and_build(tmp_path, number):
    snippets = blocks_of('docs/configs.md', 'python')
    assert len(snippets) == 2
    (tmp_path / 'own.py').write_text(snippets[number])
    cfg = Config.fromfile(tmp_path / 'own.py')
    cfg.model.backbone.init_cfg = None
    head = MODELS.build(cfg.model).bbox_head
    assert (type(head).__name__, head.num_classes) == ('ATSSHead', (20, 80)[number])
    assert type(head.assigner).__module__.startswith('atss_ext.')


def run(line: str, folder: Path, monkeypatch, extra: tuple[str, ...] = ()) -> None:
    """A ``python`` line; tools that do not train run in this process, which saves their imports."""
    words = [*shlex.split(line)[1:], *extra]
    if words[0] in ('tools/train.py', 'tools/test.py'):
        done = run_warm(words, folder, {**os.environ, 'OMP_NUM_THREADS': '1'})
        assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}'
        return
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, 'argv', words)
    monkeypatch.syspath_prepend(str((folder / words[0]).parent))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(words[0], run_name='__main__')
    assert not ended.value.code, line


CORNERS = (20, 30, 60, 80)
VOC = (
    '<annotation><filename>{}.jpg</filename><size><width>160</width><height>120</height></size><object>'
    '<name>cat</name><bndbox><xmin>21</xmin><ymin>31</ymin><xmax>60</xmax><ymax>80</ymax></bndbox></object>'
    '</annotation>'
)


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Ten pictures of a bright box, labelled both ways."""
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    for name in ('images', 'labels'):
        (tmp_path / 'my_data' / name).mkdir(parents=True)
    x1, y1, x2, y2 = CORNERS
    picture = np.full((120, 160, 3), 40, np.uint8)
    picture[y1:y2, x1:x2] = 220
    for number in range(10):
        Image.fromarray(picture).save(tmp_path / f'my_data/images/{number}.jpg')
        (tmp_path / f'my_data/labels/{number}.xml').write_text(VOC.format(number))
    return tmp_path


SHORT = (
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=4',
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')),
)


def test_own_data_from_labels_to_a_report(own_data, monkeypatch):
    voc, yolo, *others = commands_of('docs/own_data.md')
    run(voc, own_data, monkeypatch)
    file = own_data / 'my_data/all.json'
    from_voc = json.loads(file.read_text())
    file.unlink()
    for label in (own_data / 'my_data/labels').iterdir():
        label.unlink()
    for number in range(10):
        line = f'0 {40 / 160} {55 / 120} {40 / 160} {50 / 120}\n'
        (own_data / f'my_data/labels/{number}.txt').write_text(line)
    (own_data / 'my_data/data.yaml').write_text('names: [cat]\n')
    run(yolo, own_data, monkeypatch)
    from_yolo = json.loads(file.read_text())
    assert [one['name'] for one in from_yolo['categories']] == ['cat']
    for one, other in zip(from_voc['annotations'], from_yolo['annotations'], strict=True):
        assert one['bbox'] == pytest.approx([20, 30, 40, 50])
        assert other['bbox'] == pytest.approx([20, 30, 40, 50])
    for line in others:
        trains = line.startswith(('python tools/train.py', 'python tools/test.py'))
        if line.startswith('python tools/test.py'):
            work = own_data / 'work_dirs/my_atss'
            assert Config.fromfile(own_data / 'my_atss.py').train_cfg.max_epochs == 24
            (work / 'epoch_1.pth').rename(work / 'epoch_24.pth')
        run(line, own_data, monkeypatch, SHORT if trains else ())
    parts = [json.loads((own_data / f'my_data/{name}.json').read_text()) for name in ('train', 'val')]
    assert [len(part['images']) for part in parts] == [8, 2]
    found = json.loads((own_data / 'detections.json').read_text())
    assert {one['image_id'] for one in found} <= {image['id'] for image in parts[1]['images']}
    assert Image.open(own_data / 'assignment.png').size[0] > 300
    assert 'cat' in (own_data / 'report.html').read_text()


def test_troubleshooting(tmp_path, monkeypatch, capfd):
    """The lines that no other page has; the others are the README's or those of datasets.md."""
    elsewhere = {*commands_of('README.md'), *commands_of('docs/datasets.md')}
    own = [line for line in commands_of('docs/troubleshooting.md') if line not in elsewhere]
    assert len(own) == 2
    for line in own:
        assert line.startswith('python -c ')
        done = subprocess.run(
            [sys.executable, *shlex.split(line)[1:]],
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            check=True,
        )
        expected = str(native.available()) if 'available' in line else "<module 'mmcv._ext'"
        assert done.stdout.strip().startswith(expected)
