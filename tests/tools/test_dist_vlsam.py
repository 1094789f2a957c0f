"""VL-SAM over a folder in several processes: each image once, and the files that one process would write."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ports import free_port
from rule_vlm import draw
from tiny_coco import REPO, environment

from atss_ext.cli import UserError
from atss_ext.cli.open_ended import Job, Processes, join, run_job
from atss_ext.cli.open_ended.counter import Counter

SIZE = (96, 128)
SQUARES = {'red square': [(8, 8, 40, 40)], 'green square': [(80, 40, 112, 72)]}
CONFIG = """
_base_ = ['atss_ext::_base_/vlsam_runtime.py', 'atss_ext::_base_/datasets/open_ended_images.py']
custom_imports = dict(imports=['rule_models'], allow_failed_imports=False)
model = dict(
    type='atss_ext.VLSAM', vlm=dict(type='atss_ext.SlowVLM'), segmenter=dict(type='atss_ext.RuleSegmenter'),
    corners=False, questions='single')
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five images, of which the fourth cannot be read."""
    (tmp_path / 'photos').mkdir()
    for number, (name, places) in enumerate([*SQUARES.items(), *SQUARES.items(), *SQUARES.items()][:5]):
        shifted = [(x1 + number, y1, x2 + number, y2) for x1, y1, x2, y2 in places]
        Image.fromarray(draw(SIZE, {name: shifted})).save(tmp_path / f'photos/{number}.png')
    (tmp_path / 'photos/3.png').write_bytes(b'no image')
    (tmp_path / 'slow.py').write_text(CONFIG)
    return tmp_path


def test_two_processes_write_what_one_writes(folder, in_process):
    tail = ['--config', 'slow.py', '--format', 'coco', 'yolo-boxes']
    # Restarts are for processes that die: no image is asked again because another cannot be read.
    env = environment(PYTHON=sys.executable, PORT=free_port(), MAX_RESTARTS='2')
    env['PYTHONPATH'] += f'{os.pathsep}{REPO}/tests/vlsam'
    script = str(REPO / 'tools/dist_vlsam.sh')
    two = subprocess.run(
        ['bash', script, 'photos', '2', '--out', 'two', *tail], cwd=folder, env=env, capture_output=True,
        text=True, timeout=280, check=False,
    )  # fmt: skip
    assert two.returncode == 1, two.stderr[-3000:]  # for 3.png
    assert (folder / 'asked.txt').read_text().count('asked') == 4
    lines = [line for line in two.stdout.splitlines() if line.startswith('process ')]
    assert sum(': 1 objects (' in line for line in lines) == 4
    (failure,) = [line for line in lines if ' FAILED: ' in line]
    assert failure.startswith('process 2 of 2: [2/2] 3.png')
    assert 'process 1 of 2: 3 images, 3 objects: two' in lines

    with pytest.raises(SystemExit):
        in_process('vlsam.py', 'photos', '--out', 'one', *tail)
    for name in ('annotations.json', 'yolo-boxes/classes.txt', 'yolo-boxes/labels/4.txt'):
        assert (folder / 'two' / name).read_bytes() == (folder / 'one' / name).read_bytes(), name
    images = json.loads((folder / 'two/annotations.json').read_text())['images']
    assert [image['file_name'] for image in images] == ['0.png', '1.png', '2.png', '4.png']
    for image in images:
        one, other = (folder / out / 'pictures' / f'{image["file_name"]}.png' for out in ('one', 'two'))
        assert np.array_equal(np.array(Image.open(one)), np.array(Image.open(other)))


class Watched(Processes):
    """The first of two, without the other; notes what is exported whenever it waits."""

    def check_same(self, names) -> None:
        pass

    def total(self, number: int) -> int:
        return number

    def wait(self) -> None:
        SEEN.append(Path('out/annotations.json').exists())


SEEN: list[bool] = []


def test_no_process_ends_before_all_is_exported(folder, monkeypatch):
    """One that ends with failures has torchrun end the others."""
    monkeypatch.chdir(folder)
    SEEN.clear()
    job = Job(folder / 'photos', folder / 'out', str(folder / 'slow.py'), None, None, pictures=False)
    run_job(job, Watched(0, 2))
    assert SEEN == [False, True]


class Pieces(io.BytesIO):
    """What is written, one item a call."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, piece) -> int:
        if piece:
            self.pieces.append(bytes(piece))
        return len(piece)


def test_lines_of_two_processes_cannot_mix(monkeypatch):
    """torchrun starts Python with -u, where every write goes to the pipe at once."""
    pipe = Pieces()
    monkeypatch.setattr('sys.stdout', io.TextIOWrapper(pipe, write_through=True))
    counter = Counter(1, 'process 1 of 2: ')
    counter.fault('3.png', 'it is no image')
    counter.finish(Path('out'))
    assert pipe.pieces == [
        b'process 1 of 2: [1/1] 3.png: FAILED: it is no image\n',
        b'process 1 of 2: 0 images, 0 objects; 1 FAILED (the same command tries them again): out\n',
    ]


@pytest.mark.parametrize('count', range(1, 8))
def test_every_image_is_in_one_share(count):
    shares = [Processes(rank, count).share(range(5)) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == [0, 1, 2, 3, 4]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_that_starts_again_forgets_nothing(folder, monkeypatch):
    def run(**changes) -> int:
        job = Job(folder / 'photos', folder / 'out', str(folder / 'slow.py'), None, None, pictures=False)
        return run_job(Job(**{**job.__dict__, **changes}))

    monkeypatch.chdir(folder)
    asked = folder / 'asked.txt'
    assert run() == 1
    # Run a forgets what was there, once, however often and why ever its launcher starts it again; run b does
    # so again, as does another run of the same name, and every run without such a launcher.
    starts = [
        ('a', 'one', 8), ('a', 'one', 8), ('b', 'one', 12), ('b', 'one', 12),
        ('b', 'two', 16), ('b', 'two', 16),
        ('none', 'one', 20), ('none', 'one', 24),
    ]  # fmt: skip
    for name, launcher, count in starts:
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', name)
        monkeypatch.setenv('ATSS_LAUNCHER', launcher)
        assert run(restart=True) == 1
        assert asked.read_text().count('asked') == count


def test_a_video_is_one_process_s(folder):
    video = folder / 'drive.mp4'
    video.write_bytes(b'')
    job = Job(video, folder / 'out', str(folder / 'slow.py'), None, None)
    with pytest.raises(UserError, match=r'drive\.mp4 is a video'):
        run_job(job, Processes(1, 2))
    assert not (folder / 'out').exists()


def test_without_a_launcher_it_is_said_how_to_start(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match='--launcher pytorch needs RANK in the environment'):
        join('pytorch')
    assert join('none') == Processes(0, 1)
