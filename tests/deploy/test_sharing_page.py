"""Every command and example of docs/sharing.md runs, on a tiny detector."""

import re
import runpy
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from doc_pages import blocks_of, commands_of
from tiny_detectors import CLASSES, ROOT, SMALL, as_options, scene

from atss_ext.datasets.shapes import ShapesSpec
from atss_ext.datasets.shapes_coco import write_coco
from atss_ext.deploy import publish
from atss_ext.deploy.check import predict

PAGE = (ROOT / 'docs/sharing.md').read_text(encoding='utf-8')
PREDICT = 'python predict.py atss_r18.onnx picture.png'
OFFICIAL = [*as_options(SMALL), 'model.test_cfg.inference=official']
FEW = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=9',
    'default_hooks.checkpoint=None',
    'train_dataloader.batch_size=2',
]
WORKERS = [
    f'{part}_dataloader.{key}'
    for part in ('train', 'val', 'test')
    for key in ('num_workers=0', 'persistent_workers=False')
]


COMMANDS = commands_of('docs/sharing.md')


def appended(command):
    """Options that make it small."""
    if 'train.py' in command:  # which has --cfg-options at its end
        return [*OFFICIAL, *WORKERS, *FEW]
    if 'test.py' in command:
        return ['--cfg-options', *OFFICIAL, *WORKERS]
    return ['--size', '96', '128', '--cfg-options', *OFFICIAL] if 'export.py' in command else []


@pytest.fixture(scope='module')
def folder(checkpoint, tmp_path_factory):
    """A working directory as the page assumes it."""
    folder = tmp_path_factory.mktemp('sharing')
    (folder / 'configs').symlink_to(ROOT / 'configs')
    training = folder / 'work_dirs/demo/training'
    training.mkdir(parents=True)
    (training / 'epoch_5.pth').symlink_to(checkpoint)
    for split in ('train', 'val'):
        write_coco(folder / 'data/shapes', split, 2, ShapesSpec(), 3)
    cv2.imwrite(str(folder / 'picture.png'), scene((150, 200), 4))
    example = next(block for block in blocks_of('docs/sharing.md', 'python') if 'onnxruntime' in block)
    (folder / 'predict.py').write_text(example)
    return folder


def test_commands_and_examples_do_what_the_page_says(folder, tool, official, monkeypatch):
    """In the page's order: later ones use what earlier ones wrote."""
    monkeypatch.chdir(folder)
    texts = {}
    for command in COMMANDS:
        if command == PREDICT:
            continue
        python, script, *words = shlex.split(command)
        assert (python, script[:6]) == ('python', 'tools/')
        code, text, err = tool(script[6:], *words, *appended(command))
        assert code == 0, (command, err)
        texts[script[6:] + words[-1]] = text
    assert 'safetensors: 177 tensors, ' in texts['publish.pyatss_r18.safetensors']
    assert "type='atss_ext.ATSSHead'" in texts['publish.py--print-config']
    for last, sizes in (('--dynamic', 9), ('atss_r18.pt2', 3)):
        found = re.search(r'equals PyTorch on (\d+) images with (\d+) detections', texts[f'export.py{last}'])
        assert int(found[1]) == sizes
        assert int(found[2]) > 20

    done = subprocess.run(
        [sys.executable, *shlex.split(PREDICT)[1:]], capture_output=True, text=True, timeout=120, check=True
    )
    wanted = predict(official[1], cv2.imread('picture.png'))
    lines = [re.fullmatch(r'(.+) (\d\.\d{4}) \[(.+)\]', line).groups() for line in done.stdout.splitlines()]
    assert len(lines) == len(wanted.scores) > 20
    assert [name for name, _, _ in lines] == [CLASSES[label] for label in wanted.labels]
    np.testing.assert_allclose([float(score) for _, score, _ in lines], wanted.scores, rtol=0, atol=6e-5)
    boxes = [[float(number) for number in box.split(', ')] for _, _, box in lines]
    np.testing.assert_allclose(boxes, wanted.boxes, rtol=0, atol=6e-3)


def test_checkpoints_are_as_large_as_the_page_says(tmp_path):
    times = {}
    for name, options in (('SGD', {'momentum': 0.9}), ('AdamW', {})):
        model = torch.nn.Linear(300, 300)
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1, **options)
        model(torch.ones(1, 300)).sum().backward()
        optimizer.step()
        content = {'state_dict': model.state_dict(), 'optimizer': optimizer.state_dict()}
        for part, file in ((content, 'all'), (model.state_dict(), 'weights')):
            torch.save(part, tmp_path / file)
        sizes = [(tmp_path / file).stat().st_size for file in ('all', 'weights')]
        times[name] = round(sizes[0] / sizes[1], 1)
    assert times == {'SGD': 2.0, 'AdamW': 3.0}
    words = 'is two (SGD with momentum) to three times (AdamW) as large as its weights'
    assert words in ' '.join(PAGE.split())


def test_example_with_mmdet(folder, official, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / 'tiny.py').write_text(official[0].pretty_text)
    publish('work_dirs/demo/training/epoch_5.pth', folder / 'atss_r18.safetensors')
    example = next(block for block in blocks_of('docs/sharing.md', 'python') if 'init_detector' in block)
    example = example.replace('configs/demo/atss_r18_shapes.py', 'tiny.py')
    (folder / 'with_mmdet.py').write_text(example)
    capsys.readouterr()
    runpy.run_path('with_mmdet.py')
    found = capsys.readouterr().out
    # mmdet resizes the picture to 256 x 192 as the config says, and the boxes back.
    wanted = predict(official[1], cv2.resize(cv2.imread('picture.png'), (256, 192))).boxes * (200 / 256)
    first = [float(number) for number in re.search(r'\[\[(.+?)\]', found)[1].split(',')]
    np.testing.assert_allclose(first, wanted[0], rtol=0, atol=1e-3)
