"""Every Python command of docs/datasets.md runs as it stands; downloads need a network and are not tried."""

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_annotations import annotation, coco_file, image, lvis_file
from warm import run_warm

ROOT = Path(__file__).resolve().parents[2]
VOC = """<annotation><filename>{stem}.jpg</filename><size><width>100</width><height>80</height></size>
<object><name>cat</name><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>30</xmax><ymax>60</ymax></bndbox></object>
</annotation>"""
WRITES = {
    'voc2012_train.json': [10, 20, 20, 40],
    'out.json': [11, 21, 19, 39],  # corners from 0
    'train.json': [40, 32, 20, 16],
}


def commands() -> list[str]:
    blocks = re.findall(r'```bash\n(.*?)```', (ROOT / 'docs/datasets.md').read_text(), flags=re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith('python ')]


def many(content, count):
    """The same file with ``count`` images, each with an object of the first category."""
    first = content['categories'][0]['id']
    template = {**content['images'][0]}
    content['images'] = [{**template, **image(number)} for number in range(1, count + 1)]
    content['annotations'] = [annotation(n, n, first, [1, 2, 3, 4]) for n in range(1, count + 1)]
    return content


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data')
    (folder / 'tools').symlink_to(ROOT / 'tools')
    picture = Image.fromarray(np.zeros((80, 100, 3), np.uint8))
    for name in ('data/coco/val2017/1', 'data/coco/val2017/2', 'images/1', 'dataset/images/train/1'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f'{name}.jpg')
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(folder / 'data/coco/val2017/3.jpg')
    texts = {
        'data/coco/annotations/instances_val2017.json': json.dumps(coco_file()),
        'instances_train2017.json': json.dumps(many(coco_file(), 20)),
        'lvis_v1_train.json': json.dumps(many(lvis_file(), 5001)),
        'VOC2012/Annotations/1.xml': VOC.format(stem=1),
        'VOC2012/Annotations/2.xml': VOC.format(stem=2),
        'VOC2012/ImageSets/Main/train.txt': '1\n',
        'labels/1.xml': VOC.format(stem=1),
        'dataset/data.yaml': 'names: [cat]\n',
        'dataset/labels/train/1.txt': '0 0.5 0.5 0.2 0.2\n',
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_documented_commands_do_what_they_say(folder):
    lines = commands()
    assert len(lines) == 6
    for line in lines:
        done = run_warm(shlex.split(line)[1:], folder, dict(os.environ))
        assert done.returncode == 0, f'{line}\n{done.stdout}{done.stderr}'
    for name, box in WRITES.items():
        content = json.loads((folder / name).read_text())
        assert [one['bbox'] for one in content['annotations']] == [pytest.approx(box)]
    assert len(json.loads((folder / 'train_10.json').read_text())['images']) == 2
    assert len(json.loads((folder / 'lvis_5000.json').read_text())['images']) == 5000
