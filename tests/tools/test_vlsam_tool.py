"""tools/vlsam.py with stand-ins that follow rules: what it writes, how it fails, how it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from rule_vlm import BACKGROUND, COLOURS, draw
from tiny_coco import REPO, environment
from warm import run_warm

SIZE = (96, 128)
SCENES = {
    'photo 2.png': {'red square': [(8, 8, 40, 40)], 'green square': [(80, 40, 112, 72)]},
    'photo 10.png': {'blue square': [(4, 60, 28, 84)], 'green square': [(60, 30, 100, 80)]},
    'inner/c.png': {'red square': [(20, 20, 60, 60)]},
}
CONFIG = """
_base_ = ['atss_ext::_base_/vlsam_runtime.py', 'atss_ext::_base_/datasets/open_ended_images.py']
custom_imports = dict(imports=['rule_models'], allow_failed_imports=False)
model = dict(
    type='atss_ext.VLSAM', vlm=dict(type='atss_ext.{vlm}'), segmenter=dict(type='atss_ext.RuleSegmenter'),
    corners=False, questions='single')
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, scene in SCENES.items():
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(SIZE, scene)).save(path)
    for kind in ('RuleVLM', 'FussyVLM', 'SlowVLM', 'InterruptedVLM'):
        (tmp_path / f'{kind}.py').write_text(CONFIG.format(vlm=kind))
    return tmp_path


def boxes(path: Path) -> dict[str, set[tuple]]:
    coco = COCO(str(path))
    found = {}
    for image in coco.loadImgs(coco.getImgIds()):
        rows = coco.loadAnns(coco.getAnnIds(imgIds=image['id']))
        found[image['file_name']] = {(row['name'], *map(int, row['bbox'])) for row in rows}
        for row in rows:
            x, y, w, h = map(int, row['bbox'])
            expected = np.zeros((image['height'], image['width']), np.uint8)
            expected[y : y + h, x : x + w] = 1
            assert np.array_equal(coco.annToMask(row), expected)
            assert coco.cats[row['category_id']]['name'] == row['name']
    return found


def truth(*names: str) -> dict[str, set[tuple]]:
    return {
        file: {
            (name, x1, y1, x2 - x1, y2 - y1)
            for name, places in SCENES[file].items()
            for x1, y1, x2, y2 in places
        }
        for file in names
    }


def test_a_folder_becomes_annotations_labels_and_pictures(folder, in_process, capfd):
    out = folder / 'out'
    code, said = in_process(
        'vlsam.py', folder / 'photos', '--config', folder / 'RuleVLM.py', '--out', out, '--recursive',
        '--format', 'coco', 'yolo-boxes', 'yolo-polygons',
    )  # fmt: skip
    assert code == 0, said
    assert boxes(out / 'annotations.json') == truth(*SCENES)
    classes = (out / 'yolo-boxes/classes.txt').read_text().split('\n')
    labels = (out / 'yolo-boxes/labels/inner/c.txt').read_text().split()
    assert classes[int(labels[0])] == 'red square'
    assert [float(value) for value in labels[1:]] == pytest.approx([40 / 128, 40 / 96, 40 / 128, 40 / 96])
    outline = np.array((out / 'yolo-polygons/labels/inner/c.txt').read_text().split()[1:], float).reshape(
        -1, 2
    )
    assert (outline * (128, 96)).min(0) == pytest.approx([20, 20], abs=1)
    assert (outline * (128, 96)).max(0) == pytest.approx([60, 60], abs=1)
    for name in SCENES:
        picture = np.array(Image.open(out / 'pictures' / f'{name}.png').convert('RGB')).reshape(-1, 3)
        assert len(np.unique(picture, axis=0)) > 100  # letters and translucent masks


def test_a_single_image_in_natural_language(folder, in_process, capfd):
    code, said = in_process(
        'vlsam.py', folder / 'photos/photo 2.png', '--config', folder / 'RuleVLM.py', '--maps', '--quick',
    )  # fmt: skip
    assert code == 0, said
    out = folder / 'work_dirs/vlsam/photo 2'
    assert boxes(out / 'annotations.json') == truth('photo 2.png')


def test_progress_and_natural_order(folder, run_tool):
    done = run_tool(
        'vlsam.py', 'photos', '--config', 'RuleVLM.py', '--out', 'out', '--no-pictures', cwd=folder,
        PYTHONPATH=python_path(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith('[1/2] photo 2.png: 2 objects (')
    assert ' left' in lines[0]
    assert lines[1].startswith('[2/2] photo 10.png: 2 objects (')
    assert lines[2] == '2 images, 4 objects: out'
    assert not (folder / 'out/pictures').exists()


def python_path() -> str:
    return os.pathsep.join([str(REPO), str(REPO / 'tests/vlsam')])


def test_a_failing_image_is_passed_over_and_tried_again(folder, in_process, capfd):
    """photo 2 has no blue (a bug in the model), c.png is damaged; photo 10 is kept."""
    (folder / 'photos/inner/c.png').write_bytes(b'GIF89a')
    options = ('--out', folder / 'out', '--recursive', '--no-pictures')
    code, _ = in_process_code(in_process, folder / 'photos', '--config', folder / 'FussyVLM.py', *options)
    assert code == 1
    assert boxes(folder / 'out/annotations.json') == truth('photo 10.png')
    log = (folder / 'out/errors.log').read_text()
    assert 'photo 2.png' in log
    assert 'ZeroDivisionError: no blue' in log
    Image.fromarray(draw(SIZE, SCENES['photo 10.png'])).save(folder / 'photos/inner/c.png')
    code, _ = in_process_code(in_process, folder / 'photos', '--config', folder / 'FussyVLM.py', *options)
    assert code == 1
    assert set(boxes(folder / 'out/annotations.json')) == {'photo 10.png', 'inner/c.png'}


def in_process_code(in_process, *args: object) -> tuple[int, str]:
    """The tool ends with an exit of its own where images failed."""
    try:
        return in_process('vlsam.py', *args)
    except SystemExit as end:
        return int(end.code or 0), ''


def test_other_settings_do_not_mix_with_kept_results(folder, in_process):
    base = ('vlsam.py', folder / 'photos', '--config', folder / 'RuleVLM.py', '--out', folder / 'out')
    code, said = in_process(*base, '--no-pictures')
    assert code == 0, said
    code, said = in_process(*base, '--no-pictures', '--score-thr', '0.5')
    assert code == 2
    assert 'results of other settings' in said
    assert '--restart' in said
    code, said = in_process(*base, '--no-pictures', '--cfg-options', 'merge.max_detections=1', '--restart')
    assert code == 0, said
    assert {len(rows) for rows in boxes(folder / 'out/annotations.json').values()} == {1}


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['missing.png', '--config', 'RuleVLM.py'], 'missing.png does not exist'),
        (['photos'], 'no models are named; give --config'),
        (['photos', '--vlm', 'x'], 'no models are named'),
        (['photos', '--config', 'RuleVLM.py', '--vlm', 'x'], '--config names both models'),
        (['photos', '--config', 'Rule.py'], 'Rule.py does not exist'),
        (['photos', '--config', 'RuleVLM.py', '--score-thr', '2'], '--score-thr 2.0 must be from 0 to 1'),
        (['photos', '--config', 'RuleVLM.py', '--every', '0'], '--every 0 must be at least 1'),
        (['empty', '--config', 'RuleVLM.py'], 'empty itself has no image'),
        (['photos', '--config', 'RuleVLM.py', '--cfg-options', 'prompts.thresh=1'], "no setting 'thresh'"),
    ],
)
def test_mistakes_are_one_sentence(folder, in_process, monkeypatch, args, words):
    (folder / 'empty').mkdir()
    monkeypatch.chdir(folder)
    code, said = in_process('vlsam.py', *args)
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith('error: ')
    assert words in last
    assert 'Traceback' not in said


def test_a_model_that_cannot_be_loaded_ends_the_run(folder, run_tool):
    done = run_tool(
        'vlsam.py', 'photos', '--vlm', 'no/such', '--segmenter', 'no/such', cwd=folder, HF_HUB_OFFLINE='1'
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('error: ')
    assert 'no/such is no folder here' in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr
    assert 'FAILED' not in done.stdout


def test_a_killed_run_goes_on(folder):
    """SIGKILL in the middle of an image; nothing finished is done again, nothing is lost."""
    words = [sys.executable, str(REPO / 'tools/vlsam.py'), 'photos', '--config', 'SlowVLM.py', '--recursive']
    words += ['--out', 'out', '--no-pictures']
    options = {'cwd': folder, 'env': environment(PYTHONPATH=python_path())}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        deadline = time.monotonic() + 200
        while not list((folder / 'out').glob('results/??/*.json')) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = len(list((folder / 'out').glob('results/??/*.json')))
    assert 1 <= kept < 3
    (folder / 'asked.txt').unlink()
    done = run_warm(words[1:], folder, options['env'])
    assert done.returncode == 0, done.stderr
    assert f'{kept} kept from an earlier run' in done.stdout
    assert len((folder / 'asked.txt').read_text().splitlines()) == 3 - kept
    assert boxes(folder / 'out/annotations.json') == truth(*SCENES)


def test_two_inputs_of_one_name_are_not_mixed(folder, in_process, monkeypatch):
    """Both folders would write to work_dirs/vlsam/photos."""
    other = folder / 'other/photos'
    other.mkdir(parents=True)
    Image.fromarray(draw(SIZE, SCENES['inner/c.png'])).save(other / 'photo 2.png')
    monkeypatch.chdir(folder)
    tail = ('--config', folder / 'RuleVLM.py', '--no-pictures')
    assert in_process('vlsam.py', folder / 'photos', *tail)[0] == 0
    code, said = in_process('vlsam.py', other, *tail)
    assert code == 2
    assert f'holds what was found in {folder}/photos; name another folder with --out' in said
    assert in_process('vlsam.py', other, *tail, '--restart')[0] == 0
    found = boxes(folder / 'work_dirs/vlsam/photos/annotations.json')
    assert found == {'photo 2.png': truth('inner/c.png')['inner/c.png']}


def test_an_image_that_changed_is_looked_at_again(folder, in_process):
    out = folder / 'out'
    base = ('vlsam.py', folder / 'photos', '--config', folder / 'RuleVLM.py', '--out', out, '--no-pictures')
    assert in_process(*base)[0] == 0
    Image.fromarray(draw(SIZE, SCENES['inner/c.png'])).save(folder / 'photos/photo 2.png')
    assert in_process(*base)[0] == 0
    found = boxes(out / 'annotations.json')
    assert found['photo 2.png'] == truth('inner/c.png')['inner/c.png']
    assert found['photo 10.png'] == truth('photo 10.png')['photo 10.png']


def test_a_mistyped_setting_leaves_the_folder_free(folder, in_process):
    base = ('vlsam.py', folder / 'photos', '--config', folder / 'RuleVLM.py', '--out', folder / 'out')
    assert in_process(*base, '--cfg-options', 'prompts.treshold=0.5')[0] == 2
    assert not (folder / 'out').exists()
    assert in_process(*base, '--cfg-options', 'segmenter.penalti=0.5')[0] == 2
    assert in_process(*base, '--cfg-options', 'segmenter.penalty=0.4', '--no-pictures')[0] == 0


def test_a_picture_that_cannot_be_drawn_ends_nothing(folder, in_process, monkeypatch):
    """One has a name near the limit of the file system, and another stands where a folder has to be."""
    long = folder / 'photos' / ('x' * 250 + '.png')
    Image.fromarray(draw(SIZE, SCENES['photo 2.png'])).save(long)
    (folder / 'out').mkdir()
    (folder / 'out/pictures').mkdir()
    (folder / 'out/pictures/inner').write_text('no folder')
    code, said = in_process(
        'vlsam.py',
        folder / 'photos',
        '--config',
        folder / 'RuleVLM.py',
        '--out',
        folder / 'out',
        '--recursive',
    )
    assert code == 0, said
    assert 'inner/c.png: no picture could be drawn' in said
    assert len(boxes(folder / 'out/annotations.json')) == 4
    assert len(list((folder / 'out/pictures').glob('*.png'))) == 3


def test_images_that_share_a_label_file_are_refused_before_anything_is_done(folder, in_process):
    Image.fromarray(draw(SIZE, SCENES['photo 2.png'])).save(folder / 'photos/photo 2.bmp')
    code, said = in_process(
        'vlsam.py', folder / 'photos', '--config', folder / 'RuleVLM.py', '--out', folder / 'out',
        '--format', 'yolo-boxes',
    )  # fmt: skip
    assert code == 2
    assert 'would share the label file photo 2.txt' in said
    assert 'loading' not in said


def test_no_model_is_loaded_for_what_is_no_image(folder, in_process, capfd):
    (folder / 'readme.txt').write_text('no image')
    code, said = in_process_code(
        in_process, folder / 'readme.txt', '--config', folder / 'RuleVLM.py', '--out', folder / 'out'
    )
    assert code == 1
    assert 'loading' not in said


def test_settings_of_models_that_are_named(folder, in_process, monkeypatch):
    """--cfg-options reaches the model whose name --vlm gives."""
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    code, said = in_process(
        'vlsam.py', folder / 'photos', '--vlm', folder, '--segmenter', folder, '--out', folder / 'out',
        '--cfg-options', 'vlm.temperature=-1',
    )  # fmt: skip
    assert code == 2
    assert 'temperature must be 0 (greedy) or more, but is -1' in said


def test_an_interrupted_run_exports_what_it_has(folder, in_process):
    out = folder / 'out'
    code, said = in_process(
        'vlsam.py', folder / 'photos', '--config', folder / 'InterruptedVLM.py', '--out', out, '--no-pictures'
    )
    assert code == 130
    assert said.splitlines()[-1].startswith('interrupted')
    assert boxes(out / 'annotations.json') == truth('photo 2.png')


def test_a_video_keeps_the_numbers_of_its_objects(folder, in_process):
    """A red square moves to the right, a blue one appears in the third frame looked at."""
    writer = cv2.VideoWriter(str(folder / 'drive.avi'), cv2.VideoWriter.fourcc(*'FFV1'), 10, (128, 96))
    assert writer.isOpened()
    for index in range(10):
        frame = np.full((96, 128, 3), BACKGROUND, np.uint8)
        frame[30:60, 10 + 3 * index : 40 + 3 * index] = COLOURS['red square']
        if index >= 5:
            frame[70:90, 90:110] = COLOURS['blue square']
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    out = folder / 'out'
    code, said = in_process(
        'vlsam.py', folder / 'drive.avi', '--config', folder / 'RuleVLM.py', '--out', out, '--every', '3'
    )
    assert code == 0, said
    document = json.loads((out / 'annotations.json').read_text())
    files = {image['id']: image['file_name'] for image in document['images']}
    rows = {(files[row['image_id']], row['name']): row for row in document['annotations']}
    names = [f'drive/{index:08d}' for index in (0, 3, 6, 9)]
    assert sorted(files.values()) == names
    assert [rows[name, 'red square']['track_id'] for name in names] == [1, 1, 1, 1]
    assert [rows[name, 'red square']['bbox'] for name in names] == [
        [10 + 3 * index, 30, 30, 30] for index in (0, 3, 6, 9)
    ]
    assert [rows[name, 'blue square']['track_id'] for name in names[2:]] == [2, 2]
    assert not list(out.glob('.*'))
    video = cv2.VideoCapture(str(out / 'drive.mp4'))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10 / 3, rel=0.01)


def test_an_interruption_keeps_the_earlier_video_and_what_is_known(folder, in_process):
    """It ends at the frame with blue; the first frame is exported, the video of before is kept."""
    write_frames(folder / 'drive.avi', [{'red square': [(10, 10, 40, 40)]}, SCENES['photo 10.png']])
    out = folder / 'out'
    out.mkdir()
    (out / 'drive.mp4').write_bytes(b'of an earlier run')
    code, said = in_process(
        'vlsam.py',
        folder / 'drive.avi',
        '--config',
        folder / 'InterruptedVLM.py',
        '--out',
        out,
        '--every',
        '1',
    )
    assert code == 130
    assert said.splitlines()[-1].startswith('interrupted')
    document = json.loads((out / 'annotations.json').read_text())
    assert [image['file_name'] for image in document['images']] == ['drive/00000000']
    assert (out / 'drive.mp4').read_bytes() == b'of an earlier run'
    assert not list(out.glob('.*'))


def test_frames_that_fail_stay_in_the_video(folder, in_process):
    scenes = [SCENES['photo 10.png'], SCENES['photo 2.png'], SCENES['photo 10.png']]  # the second has no blue
    write_frames(folder / 'drive.avi', scenes)
    out = folder / 'out'
    code, _ = in_process_code(
        in_process, folder / 'drive.avi', '--config', folder / 'FussyVLM.py', '--out', out, '--every', '1'
    )
    assert code == 1
    assert int(cv2.VideoCapture(str(out / 'drive.mp4')).get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    document = json.loads((out / 'annotations.json').read_text())
    assert [image['file_name'] for image in document['images']] == ['drive/00000000', 'drive/00000002']


def write_frames(path: Path, scenes: list[dict]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'FFV1'), 10, (128, 96))
    for scene in scenes:
        writer.write(np.ascontiguousarray(draw(SIZE, scene)[..., ::-1]))
    writer.release()
