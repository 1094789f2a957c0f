import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from warm import run_warm

REPO = Path(__file__).resolve().parents[2]
TINY = ['--train-images', '24', '--val-images', '12', '--cpu-threads', '1']


def words_of(folder, *options):
    folders = ['--work-dir', str(folder / 'work'), '--data-root', str(folder / 'data')]
    return [str(REPO / 'tools' / 'demo.py'), *folders, *TINY, *options]


def start(folder, *options):
    environment = {**os.environ, 'PYTHONPATH': str(REPO)}
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    command = [sys.executable, *words_of(folder, *options)]
    return subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True, **pipes)


def once_more(folder, *options):
    """In a process that has the libraries already; how it ended and what it said."""
    run = run_warm(words_of(folder, *options), folder, dict(os.environ))
    return run.returncode, run.stdout, run.stderr


def finish(run):
    out, err = run.communicate(timeout=240)
    return run.returncode, out, err


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    return folder, finish(start(folder, '--epochs', '2'))


def summary_of(folder):
    return json.loads((folder / 'work' / 'summary.json').read_text())


def test_the_summary_says_what_pycocotools_says_of_the_saved_detections(demo):
    folder, (code, _, err) = demo
    assert (code, err) == (0, '')
    summary = summary_of(folder)
    truth = COCO(str(folder / 'data' / 'val' / 'annotations.json'))
    found = truth.loadRes(str(folder / 'work' / 'detections.bbox.json'))
    assert {entry['image_id'] for entry in found.anns.values()} == set(range(1, 13))
    judge = COCOeval(truth, found, 'bbox')
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    assert [summary[name] for name in ('AP', 'AP50', 'AP75')] == judge.stats[:3].tolist()
    assert summary['images'] == len(truth.imgs) == 12
    assert summary['train_images'] == 24
    assert summary['trained'] == 'now'
    seconds = sum(summary['seconds'].values())
    assert seconds / 60 <= summary['minutes'] < seconds / 60 + 1
    assert summary['minutes_of'] == 'the run that trained'
    # What the training itself saw last, measured by mmdet's own metric, which keeps three digits.
    (scalars,) = (folder / 'work' / 'training').glob('*/vis_data/scalars.json')
    last = [json.loads(line) for line in scalars.read_text().splitlines() if 'bbox_mAP' in line][-1]
    assert abs(last['coco/bbox_mAP'] - summary['AP']) <= 0.00051


def test_people_see_progress_a_table_and_nothing_else(demo):
    folder, (_, out, _) = demo
    lines = out.splitlines()
    assert [line for line in lines if line.startswith('[')] == [
        '[1/4] drawing the shapes world',
        '[2/4] training ATSS, ResNet-18, from scratch',
        '[3/4] evaluating on 12 images it has not seen',
        '[4/4] drawing pictures',
    ]
    for epoch in (1, 2):
        assert re.search(rf'^  epoch {epoch}/2  step \d+/\d+  loss \d\.\d+  .+ left$', out, re.MULTILINE)
    assert re.search(r'^  epoch 2/2  validation: AP \d\.\d{3}  AP50 \d\.\d{3}$', out, re.MULTILINE)
    table = dict(line.split(maxsplit=1) for line in lines[lines.index('') + 1 :])
    summary = summary_of(folder)
    assert table['AP50'] == f'{summary["AP50"]:.3f}'
    assert table['images'] == '12 evaluated, 24 trained on'
    for name in ('checkpoint', 'detections', 'summary', 'messages'):
        assert Path(table[name]).is_file()
    assert not re.search('warning|mmengine|loading annotations', out, re.IGNORECASE)


def test_the_pictures_show_something(demo):
    folder, _ = demo
    pages = summary_of(folder)['pictures']
    assert [Path(page).name for page in pages] == ['detections.png', 'assignment.png', 'curves.png']
    for page in pages:
        picture = cv2.imread(page)
        assert min(picture.shape[:2]) > 300
        assert 0.05 < (picture != 255).any(axis=2).mean() < 0.95


def test_a_finished_demo_is_not_trained_again_unless_its_settings_change(demo, tmp_path):
    folder, _ = demo
    before = summary_of(folder)
    checkpoint = Path(before['checkpoint'])
    stamp = checkpoint.stat().st_mtime_ns
    code, out, err = once_more(folder, '--epochs', '2')
    assert (code, err) == (0, '')
    assert '  trained already with these settings; --fresh trains anew' in out
    after = summary_of(folder)
    assert after['trained'] == 'before'
    for name in ('minutes', 'minutes_of', 'seconds'):
        assert after[name] == before[name]
    assert re.search(r'^trained +before: minutes are of the run that trained$', out, re.MULTILINE)
    assert [after[name] for name in ('AP', 'AP50', 'AP75')] == [
        before[name] for name in ('AP', 'AP50', 'AP75')
    ]
    assert checkpoint.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_interrupted_it_goes_on_and_with_other_settings_it_starts_over(tmp_path):
    run = start(tmp_path, '--epochs', '3')
    for line in run.stdout:
        if line.startswith('  epoch 2/3'):  # the checkpoint of epoch 1 is written
            os.kill(run.pid, signal.SIGINT)
            break
    code, out, err = finish(run)
    assert (code, err) == (130, '')
    assert out.splitlines()[-1] == 'interrupted; the same command goes on after the last finished epoch'
    code, out, _ = finish(start(tmp_path, '--epochs', '3'))
    assert code == 0
    done = re.search(r'3 epochs on .+, going on after epoch ([12])\n', out)
    assert f'epoch {int(done[1]) + 1}/3  step' in out
    assert f'epoch {done[1]}/3  step' not in out
    assert summary_of(tmp_path)['trained'] == f'from epoch {done[1]} on'
    assert summary_of(tmp_path)['minutes_of'] == f'the run that trained from epoch {done[1]} on'
    code, out, _ = finish(start(tmp_path, '--epochs', '1', '--seed', '1'))
    assert code == 0
    assert 'starting over, as the settings are not those of the last training' in out
    assert 'epoch 1/1  step' in out


def test_a_folder_of_others_is_refused(demo, tmp_path):
    folder, _ = demo
    (tmp_path / 'work' / 'training').mkdir(parents=True)
    (tmp_path / 'work' / 'training' / 'epoch_9.pth').write_text('precious')
    (tmp_path / 'data').symlink_to(folder / 'data')
    code, _, err = once_more(tmp_path)
    assert code == 2
    assert err.splitlines()[-1].endswith(
        "training holds files that are not the demo's: choose another --work-dir"
    )
    assert (tmp_path / 'work' / 'training' / 'epoch_9.pth').read_text() == 'precious'


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        (['--epochs', '0'], 'argument --epochs: must be an integer of at least 1, but is 0'),
        (['--seed', '-1'], 'argument --seed: must be an integer of at least 0, but is -1'),
    ],
)
def test_bad_options_are_refused(option, sentence, capsys):
    import importlib.util

    spec = importlib.util.spec_from_file_location('demo_tool', REPO / 'tools' / 'demo.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with pytest.raises(SystemExit):
        tool.parse_args(option)
    assert capsys.readouterr().err.splitlines()[-1].endswith(sentence)
