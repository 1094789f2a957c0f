"""Every command of docs/datasets.md runs as it stands; wget and its like write down what they are told."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from doc_pages import blocks_of, commands_of
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
    lines = [line for line in commands_of('docs/datasets.md') if line.startswith('python ')]
    assert len(lines) == 6
    for line in lines:
        done = run_warm(shlex.split(line)[1:], folder, dict(os.environ))
        assert done.returncode == 0, f'{line}\n{done.stdout}{done.stderr}'
    for name, box in WRITES.items():
        content = json.loads((folder / name).read_text())
        assert [one['bbox'] for one in content['annotations']] == [pytest.approx(box)]
    assert len(json.loads((folder / 'train_10.json').read_text())['images']) == 2
    assert len(json.loads((folder / 'lvis_5000.json').read_text())['images']) == 5000


COCO, LVIS = 'http://images.cocodataset.org', 'https://dl.fbaipublicfiles.com/LVIS'
DOWNLOADS = [
    [
        f'wget {COCO}/zips/train2017.zip {COCO}/zips/val2017.zip '
        f'{COCO}/annotations/annotations_trainval2017.zip',
        'md5sum -c',
        'unzip -q annotations_trainval2017.zip',
        'unzip -q train2017.zip',
        'unzip -q val2017.zip',
    ],
    [
        f'wget {LVIS}/lvis_v1_train.json.zip {LVIS}/lvis_v1_val.json.zip',
        'md5sum -c',
        'unzip -q lvis_v1_train.json.zip',
        'unzip -q lvis_v1_val.json.zip',
        'wget https://huggingface.co/GLIPModel/GLIP/resolve/main/lvis_v1_minival_inserted_image_name.json',
    ],
]
PROGRAM = """#!/bin/bash
echo "${0##*/} $*" >> "$RECORD"
case $0 in
*/wget) for url in "$@"; do echo archive > "${url##*/}"; done ;;
*/md5sum) exec /usr/bin/env PATH=/usr/bin:/bin sed 's/^[0-9a-f]\\{32\\}  //' | xargs ls > /dev/null ;;
esac
"""


def test_downloads_ask_for_the_files_they_name(tmp_path):
    """The sums are of the real files: they are those of other pages, and not compared here."""
    (tmp_path / 'bin').mkdir()
    for name in ('wget', 'md5sum', 'unzip'):
        (tmp_path / 'bin' / name).write_text(PROGRAM)
        (tmp_path / 'bin' / name).chmod(0o755)
    (tmp_path / 'data/coco/annotations').mkdir(parents=True)
    (tmp_path / 'CODA/base-val-1500').mkdir(parents=True)
    scripts = [block for block in blocks_of('docs/datasets.md', 'bash') if 'python ' not in block]
    said = []
    for number, script in enumerate(scripts):
        record = tmp_path / f'record{number}'
        environment = {
            **os.environ,
            'PATH': f'{tmp_path / "bin"}:{os.environ["PATH"]}',
            'RECORD': str(record),
        }
        subprocess.run(['bash', '-euc', script], cwd=tmp_path, env=environment, check=True)
        said += [record.read_text().splitlines()] if record.exists() else []
    assert said == DOWNLOADS
    assert (tmp_path / 'data/coda').resolve() == tmp_path / 'CODA/base-val-1500'
    assert (tmp_path / 'data/coda2022').resolve() == tmp_path / 'CODA'
