"""The benchmark tools on tiny inputs; how fast anything is, no test says."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tiny_coco import REPO
from warm import run_warm

KEYS = {'work', 'against', 'ratio', 'ours_ms', 'theirs_ms', 'ours_mb', 'theirs_mb'}
# Pattern of the work, opponent, number of rows.
EXPECTED = [
    (r'atss_assign, grid, N = 751, M = \d+', 'mmdet ATSSAssigner', 3),
    (r'atss_assign, any priors, N = 751, M = \d+', 'mmdet ATSSAssigner', 3),
    (r'peak extra memory, atss_assign, grid, .*', 'mmdet ATSSAssigner', 1),
    (r'peak extra memory, atss_assign, any priors, .*', 'mmdet ATSSAssigner', 1),
    (r'atss_assign, (grid|any priors), N = 751, M = 250', None, 2),
    (r'head targets, B = 1, 3 gts an image', 'mmdet get_targets', 1),
    (r'batched_box_iou, 751 x 5', 'torchvision box_iou', 1),
    (r'batched_box_iou, 751 x 5', 'mmdet bbox_overlaps', 1),
]
PAGE = (
    'before\n<!-- cpu: begin -->\nold\n<!-- cpu: end -->\nbetween\n<!-- cuda: begin --><!-- cuda: end -->\n'
)


@pytest.fixture(scope='module')
def without_mmdet(tmp_path_factory):
    """Folder and future of a quick run beside the other, with a finder that hides mmdet and matplotlib."""
    folder = tmp_path_factory.mktemp('without_mmdet')
    (folder / 'sitecustomize.py').write_text(
        'import importlib.util as u\nfind = u.find_spec\n'
        'u.find_spec = lambda name, *a: None if name.startswith(("mm", "matplotlib")) else find(name, *a)\n'
    )
    path = os.pathsep.join([str(folder), str(REPO)])
    options = ['--quick', '--threads', 1, '--wait-policy', 'passive', '--json', 'a.json']
    with ThreadPoolExecutor(1) as pool:
        yield folder, path, pool.submit(run, *options, cwd=folder, PYTHONPATH=path)


@pytest.fixture(scope='module')
def quick(tmp_path_factory, without_mmdet) -> tuple[Path, str]:
    """Folder and output of one quick run; the run without mmdet goes on meanwhile."""
    folder = tmp_path_factory.mktemp('benchmarks')
    (folder / 'page.md').write_text(PAGE)
    done = run(
        '--quick',
        '--threads',
        1,
        '--json',
        'a/b.json',
        '--plot',
        'a.png',
        '--markdown',
        'page.md',
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def run(
    *args: object, cwd: Path, script: str = 'run.py', warm: bool = False, **extra: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(REPO), *filter(None, [os.environ.get('PYTHONPATH')])])
    environment = {**os.environ, 'PYTHONPATH': path, 'CUDA_VISIBLE_DEVICES': '', **extra}
    command = [str(REPO / 'tools/benchmarks' / script), *map(str, args)]
    if warm:
        return run_warm(command, cwd, environment)
    command = [sys.executable, *command]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_rows(quick):
    folder, printed = quick
    result = json.loads((folder / 'a/b.json').read_text())
    rows = result['rows']
    for pattern, against, count in EXPECTED:
        found = [row for row in rows if re.fullmatch(pattern, row['work']) and row['against'] == against]
        assert len(found) == count, pattern
    assert len(rows) == sum(count for *_, count in EXPECTED)
    for row in rows:
        assert row.keys() >= KEYS
        assert row['work'] in printed
        pairs = [(row['ours_ms'], row['theirs_ms']), (row['ours_mb'], row['theirs_mb'])]
        ratios = [theirs / ours for ours, theirs in pairs if theirs is not None]
        assert ([] if row['ratio'] is None else [row['ratio']]) == pytest.approx(ratios)
    assert result['threads'] == 1
    assert result['machine']['cores'] == os.cpu_count()
    assert result['command'] == (
        'python tools/benchmarks/run.py --json b.json --threads 1 --quick --plot a.png --markdown page.md'
    )
    assert (result['wait_policy'], result['omp_wait_policy']) == (
        'default',
        os.environ.get('OMP_WAIT_POLICY'),
    )
    assert result['failed'] == result['left_out'] == []


def test_spreads_cold_calls_and_parts(quick):
    rows = json.loads((quick[0] / 'a/b.json').read_text())['rows']
    timed = [row for row in rows if row['against'] and row['ours_ms']]
    assert len(timed) == 9
    for row in timed:
        for side in ('ours', 'theirs'):
            first, third = row[f'{side}_spread']
            assert 0 < first <= row[f'{side}_ms'] <= third
        assert row['cold_ratio'] == pytest.approx(row['theirs_cold_ms'] / row['ours_cold_ms'])
        assert row['parts']
        assert all(milliseconds > 0 for milliseconds in row['parts'].values())
    by_gts = {}
    for row in timed:
        if 'M = ' in row['work']:
            by_gts.setdefault(row['work'].split('M = ')[1], []).append(
                (row['theirs_ms'], row['theirs_cold_ms'])
            )
    assert all(
        len(both) == 2 and both[0] == both[1] for both in by_gts.values()
    )  # the opponent is timed once


def test_the_other_wait_policy(quick):
    folder, _ = quick
    result = json.loads((folder / 'a/b.json').read_text())
    other = result['other_policy']
    assert other['omp_wait_policy'] == 'passive'
    timed = [row['work'] for row in result['rows'] if row['against'] and row['ours_ms']]
    assert [row['work'] for row in other['rows']] == timed
    page = (folder / 'page.md').read_text()
    (head,) = [line for line in page.splitlines() if line.endswith('| ratio, OMP_WAIT_POLICY=passive |')]
    row = other['rows'][0]
    name = f'| {row["work"]}, {row["against"]} |'
    index = page.splitlines().index(head) + 2
    line = page.splitlines()[index]
    assert line.startswith(name)
    assert f'{row["ratio"]:.0f}x |' in line or f'{row["ratio"]:.2f}x |' in line


def test_a_missed_ratio_stands_beside_its_parts(quick):
    folder, _ = quick
    page = (folder / 'page.md').read_text()
    missed = [row for row in json.loads((folder / 'a/b.json').read_text())['rows'] if row['reached'] is False]
    assert len([line for line in page.splitlines() if re.match(r'- .*x of .*x', line)]) == len(missed)
    for row in missed:
        (line,) = [one for one in page.splitlines() if one.startswith(f'- {row["work"]}, {row["against"]}: ')]
        assert all(f'; {name} ' in line for name in row['parts'] or {})


def test_growth_plot_and_page(quick):
    folder, _ = quick
    growth = json.loads((folder / 'a/b.json').read_text())['growth']
    assert [point['priors'] for point in growth['by_priors']] == [341, 1364]
    assert [point['gts'] for point in growth['by_gts']] == [10, 30]
    assert (folder / 'a.png').read_bytes().startswith(b'\x89PNG')
    page = (folder / 'page.md').read_text()
    assert page.startswith('before\n<!-- cpu: begin -->\n')
    assert page.endswith(PAGE[PAGE.index('<!-- cpu: end -->') :])
    assert 'old' not in page
    assert '| head targets, B = 1, 3 gts an image, mmdet get_targets |' in page
    assert '(a.png)' in page
    assert 'the figures mean nothing' in page
    assert 'From 341 to 1,364 priors, a factor of 4, times change by factors: atss_assign ' in page
    assert 'From 10 to 30 gts, a factor of 3, times change by factors: atss_assign ' in page
    assert str(folder) not in page


def test_a_page_from_a_file(quick, tmp_path):
    folder, _ = quick
    (tmp_path / 'page.md').write_text(PAGE)
    (tmp_path / 'whole.json').write_text('{"benchmarks": ' + (folder / 'a/b.json').read_text() + '}')
    assert run('whole.json', 'page.md', cwd=tmp_path, script='render.py', warm=True).returncode == 0
    assert '| batched_box_iou, 751 x 5, torchvision box_iou |' in (tmp_path / 'page.md').read_text()
    (tmp_path / 'none.json').write_text('{"benchmarks": null}')
    done = run('none.json', 'page.md', cwd=tmp_path, script='render.py', warm=True)
    assert (done.returncode, done.stderr) == (
        2,
        'error: none.json holds no benchmark rows; write it with run.py --json\n',
    )


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (['--threads', '0'], 'argument --threads: must be an integer of at least 1, but is 0'),
        (['--device', 'cuda'], '--device cuda: torch sees no CUDA device here; use --device cpu'),
        (['--markdown', 'gone.md'], '--markdown: gone.md does not exist; name the page to fill'),
    ],
)
def test_a_bad_option_is_one_sentence(options, sentence, tmp_path):
    done = run(*options, cwd=tmp_path, warm=True)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if 'error' in line.lower()]
    assert line.startswith(f'error: {sentence}')
    assert 'Traceback' not in done.stderr


def test_without_mmdet_its_rows_are_left_out(without_mmdet):
    """As on a machine that has torch and torchvision alone."""
    folder, path, running = without_mmdet
    done = running.result()
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / 'a.json').read_text())
    assert {row['against'] for row in result['rows']} == {None, 'torchvision box_iou'}
    assert len(result['left_out']) == 10
    assert (result['omp_wait_policy'], result['other_policy']) == ('passive', None)
    sentence = (
        'left out: head targets, B = 1, 3 gts an image against mmdet get_targets, which is not installed'
    )
    assert sentence in done.stdout.splitlines()
    done = run('--plot', 'a.png', cwd=folder, PYTHONPATH=path)
    assert (done.returncode, 'error: --plot a.png needs matplotlib' in done.stderr) == (2, True)


# Stands for the interpreter of a machine with a GPU: the report is real, the steps are not.
INTERPRETER = """#!/usr/bin/env bash
case "$*" in
  *"gpu_report.py probe") echo 9.0 ;;
  *build_ext*) echo "$TORCH_CUDA_ARCH_LIST $FORCE_CUDA"; exit ${BUILD:-0} ;;
  *"-m pytest"*) echo "== 7 passed in 1.00s =="; exit ${TESTS:-0} ;;
  *benchmarks/run.py*) cp "$RESULT" "${@: -1}" ;;
  *) exec PYTHON "$@" ;;
esac
"""


@pytest.fixture
def check_gpu(tmp_path, quick):
    """Run gpu_check.sh in a tree of its own; return what ran and its JSON."""
    tree = tmp_path / 'tree'
    shutil.copytree(REPO / 'tools', tree / 'tools')
    for name in ('atss_ext', 'configs', 'tests', 'docs'):
        (tree / name).mkdir()
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'CHANGELOG.md', 'model-index.yml'):
        (tree / name).touch()
    stub = tmp_path / 'python'
    stub.write_text(INTERPRETER.replace('PYTHON', sys.executable))
    stub.chmod(0o755)

    def run_check(**extra: str) -> tuple[subprocess.CompletedProcess[str], dict]:
        tools = {'PATH': f'{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin', 'PYTHON': str(stub)}
        given = {'OUT': str(tmp_path / 'out dir'), 'RESULT': str(quick[0] / 'a/b.json'), **extra}
        environment = {**os.environ, **tools, **given}
        environment.pop('TORCH_CUDA_ARCH_LIST', None)
        command = [str(tree / 'tools/gpu_check.sh')]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done, json.loads((tmp_path / 'out dir/gpu_check.json').read_text())

    return run_check


def test_gpu_check_notes_every_step(check_gpu, tmp_path):
    sanitizer = tmp_path / 'compute-sanitizer'
    sanitizer.write_text('#!/usr/bin/env bash\necho "ERROR SUMMARY: 0 errors $*"\n')
    sanitizer.chmod(0o755)
    done, result = check_gpu()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [step['step'] for step in result['steps']] == [
        'build',
        'tests',
        'benchmarks',
        'memcheck',
        'initcheck',
    ]
    assert {step['status'] for step in result['steps']} == {'ok'}
    assert result['steps'][0]['summary'] == '9.0 1'
    assert '7 passed' in result['steps'][1]['summary']
    assert 'ERROR SUMMARY: 0 errors --tool memcheck' in result['steps'][3]['summary']
    assert len(result['benchmarks']['rows']) == sum(count for *_, count in EXPECTED)
    assert 'all steps passed' in done.stdout


def test_gpu_check_fails_with_a_step(check_gpu):
    done, result = check_gpu(TESTS='1')
    steps = {step['step']: step['status'] for step in result['steps']}
    assert (done.returncode, result['ok'], steps['tests'], steps['benchmarks']) == (1, False, 'failed', 'ok')
    assert steps['memcheck'] == 'skipped'  # no compute-sanitizer on this PATH
    done, result = check_gpu(BUILD='3')
    assert [step['status'] for step in result['steps']] == ['failed', *['skipped'] * 4]
    assert (done.returncode, result['benchmarks']) == (1, None)
    done, result = check_gpu(GPU_CHECK_SECONDS='5')
    assert (done.returncode, result['steps'][0]['status']) == (1, 'timed out')


@pytest.mark.parametrize(
    ('extra', 'sentence'),
    [
        (
            {'PYTHON': sys.executable},
            'gpu_check: torch sees no CUDA device here; run this on a machine with an NVIDIA GPU',
        ),
        ({'PYTHON': '/no/python'}, 'gpu_check: /no/python does not run; name an interpreter, as in PYTHON='),
    ],
)
def test_gpu_check_says_what_is_missing(extra, sentence, tmp_path):
    done = subprocess.run(
        [str(REPO / 'tools/gpu_check.sh')],
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': '', 'OUT': str(tmp_path / 'out'), **extra},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'out').exists()
