"""How the documented commands of the README and of the pages on VL-SAM are run, and a folder to run them in.

The models that the commands name cannot be fetched here: tiny ones of the same classes lie in folders of the
same names.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from doc_pages import ROOT
from mmdet.datasets import CocoDataset
from PIL import Image
from tiny_clip import tiny_clip
from tiny_sams import tiny_sam
from tiny_vlms import tiny_vlm
from warm import run_warm

from atss_ext.vlsam.world.scenes import scene_of

IN_THIS_ENVIRONMENT = ['VENV=', f'PYTHON={sys.executable}']
AT_ROOT = ('make', 'pip')
MODELS = {
    'llava-hf/llava-1.5-7b-hf': (tiny_vlm, 'llava'),
    'Qwen/Qwen2.5-VL-7B-Instruct': (tiny_vlm, 'qwen2_5_vl'),
    'facebook/sam-vit-huge': (tiny_sam, 'sam'),
    'facebook/sam2.1-hiera-large': (tiny_sam, 'sam2'),
}


def fill(folder: Path) -> Path:
    """Makes a working directory as the pages assume it: configs, tools, a tiny data/coco and tiny models."""
    (folder / 'configs').symlink_to(ROOT / 'configs')
    (folder / 'tools').symlink_to(ROOT / 'tools')
    coco = folder / 'data/coco'
    (coco / 'annotations').mkdir(parents=True)
    categories = [{'id': i + 1, 'name': name} for i, name in enumerate(CocoDataset.METAINFO['classes'])]
    for split in ('train2017', 'val2017'):
        (coco / split).mkdir()
        images, annotations = [], []
        for i in range(4):
            picture = np.full((64, 64, 3), 30, np.uint8)
            picture[8:40, 10 + i : 50] = 200
            cv2.imwrite(str(coco / split / f'{i}.jpg'), picture)
            images.append({'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 64})
            box = [10 + i, 8, 40 - i, 32]
            area = box[2] * box[3]
            fields = {'id': i + 1, 'image_id': i, 'category_id': 3, 'bbox': box, 'area': area}
            x, y, w, h = box
            corners = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append({**fields, 'iscrowd': 0, 'segmentation': corners})
        document = {'images': images, 'annotations': annotations, 'categories': categories}
        (coco / f'annotations/instances_{split}.json').write_text(json.dumps(document))
    (folder / 'data/coda').mkdir()
    (folder / 'data/coda/corner_case.json').write_text(json.dumps(document))
    (coco / 'annotations/lvis_v1_minival_inserted_image_name.json').write_text(json.dumps(as_lvis(document)))
    (folder / 'data/coda/images').symlink_to(coco / 'val2017')
    (folder / 'data/images').symlink_to(coco / 'val2017')
    add_models(folder)
    return folder


def as_lvis(document: dict) -> dict:
    federated = {'neg_category_ids': [1], 'not_exhaustive_category_ids': []}
    images = [{**image, **federated} for image in document['images']]
    categories = [{**one, 'frequency': 'frc'[one['id'] % 3]} for one in document['categories']]
    return {**document, 'images': images, 'categories': categories}


def add_models(folder: Path) -> None:
    """Tiny models by the names the commands use, pictures and a video."""
    for name, (build, family) in MODELS.items():
        for part in build(family):
            part.save_pretrained(folder / name)
    tiny_clip(folder / 'openai/clip-vit-large-patch14')  # reads the names that come out
    (folder / 'photos').mkdir()
    rng = np.random.default_rng(0)
    for path in ('street.jpg', 'photos/1.jpg', 'photos/2.png'):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(folder / path)
    video = cv2.VideoWriter(str(folder / 'drive.avi'), cv2.VideoWriter.fourcc(*'FFV1'), 10, (80, 60))
    for _ in range(8):
        video.write(rng.integers(0, 255, (60, 80, 3), np.uint8))
    video.release()
    # What the tools of the small world find and fill.
    Image.fromarray(scene_of('check', 0).image).save(folder / 'picture.png')
    (folder / 'docs').mkdir()
    shutil.copy(ROOT / 'docs/vlsam_world.md', folder / 'docs')


class Commands:
    """Runs commands of a page: the first of Python in an interpreter of its own, the others in warm ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fresh = True

    def __call__(self, line: str, appended: list[str]) -> str:
        """One that must succeed, with ``appended`` behind it; its output."""
        appended = [part.format(tmp=self.folder) if part.startswith('ARGS') else part for part in appended]
        words = shlex.split(line)
        if words[0].startswith('tools/dist'):
            words[-1] = (
                '1'  # of eight GPUs; tests/tools/test_dist.py and test_dist_vlsam.py start two processes
            )
        words += appended
        # The scripts call `python`, as in an activated environment.
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        environment = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1'}
        if words[0] == 'python' and not self.fresh:
            done = run_warm(words[1:], self.folder, environment, timeout=600)
        else:
            self.fresh &= words[0] != 'python'
            words = [sys.executable, *words[1:]] if words[0] == 'python' else words
            words = [sys.executable, '-m', *words] if words[0] in ('pip', 'mim') else words
            cwd = ROOT if line.startswith(AT_ROOT) else self.folder
            done = subprocess.run(
                words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
            )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f'{line}\n{output[-4000:]}'
        return output
