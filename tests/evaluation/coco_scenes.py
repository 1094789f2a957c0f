"""Small COCO files with adversarial results, and pycocotools' own figures of them."""

import contextlib
import copy
import io
import json
import random

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZE = (120, 160)
NAMES = ('axe', 'bag', 'cup', 'dog')
FIGURES = (
    'AP',
    'AP50',
    'AP75',
    'APs',
    'APm',
    'APl',
    'AR@1',
    'AR@10',
    'AR@100',
    'ARs@100',
    'ARm@100',
    'ARl@100',
)


def polygon(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def run_lengths(box):
    mask = np.zeros(SIZE, np.uint8, order='F')
    x, y, w, h = box
    mask[y : y + h, x : x + w] = 1
    encoded = rle.encode(mask)
    return {'size': list(SIZE), 'counts': encoded['counts'].decode()}


def coco_file(images, objects):
    """A file: image ids, and objects as (image, category, box, crowd)."""
    return {
        'images': [{'id': n, 'height': SIZE[0], 'width': SIZE[1], 'file_name': f'{n}.jpg'} for n in images],
        'annotations': [
            {'id': number, 'image_id': image, 'category_id': category, 'bbox': box, 'area': box[2] * box[3],
             'iscrowd': crowd, 'segmentation': run_lengths(box) if crowd else polygon(box)}
            for number, (image, category, box, crowd) in enumerate(objects, 1)
        ],
        'categories': [{'id': 10 * n, 'name': name} for n, name in enumerate(NAMES, 1)],
    }  # fmt: skip


def result(image, category, score, box):
    return {
        'image_id': image,
        'category_id': category,
        'score': score,
        'bbox': box,
        'segmentation': run_lengths(box),
    }


def random_box(chance):
    x, y = chance.randrange(0, 50), chance.randrange(0, 15)
    side = chance.choice([9, 20, 32, 60, 100])
    return [x, y, side, chance.choice([side, max(side - 7, 1)])]


def random_scene(seed):
    """Ties, crowds, doubled objects, empty images and categories, more than 100 detections an image."""
    chance = random.Random(seed)
    images = [7, 2, 900, 41, 5, 16, 3]
    some = [
        (
            chance.choice(images[:4]),
            chance.choice([10, 20, 30]),
            random_box(chance),
            int(chance.random() < 0.2),
        )
        for _ in range(30)
    ]
    file = coco_file(images, [*some, *some[:3]])
    results = []
    for image, category, box, _ in some * 4:
        moved = [max(value + chance.choice([0, 0, 0, 1, -1, 4]), 1) for value in box]
        moved = moved if chance.random() < 0.8 else random_box(chance)
        category = category if chance.random() < 0.8 else chance.choice([10, 20, 30, 40])
        results.append(result(image, category, chance.randrange(5) / 4, moved))
    results += [result(16, 10, 0.5, random_box(chance)) for _ in range(3)]
    results += [result(2, 10, chance.randrange(9) / 8, random_box(chance)) for _ in range(120)]
    return file, results


def reference(file, results, iou_type, agnostic=False, max_dets=(1, 10, 100)):
    """The scorer of pycocotools; masks are given without their boxes."""
    file, results = copy.deepcopy(file), copy.deepcopy(results)
    for row in results:
        row.pop('bbox' if iou_type == 'segm' else 'segmentation', None)
    with contextlib.redirect_stdout(io.StringIO()):
        goals = COCO()
        goals.dataset = file
        goals.createIndex()
        scorer = COCOeval(goals, goals.loadRes(results), iou_type)
        scorer.params.useCats = int(not agnostic)
        scorer.params.maxDets = list(max_dets)
        scorer.evaluate()
        scorer.accumulate()
        if len(max_dets) == 3:
            scorer.summarize()
    return scorer


def sample(file, image, results, names=NAMES, masks=False):
    """What a model says of an image: corners, and labels that are places among names."""
    import torch

    of_id = {one['id']: one['name'] for one in file['categories']}
    own = [one for one in results if one['image_id'] == image]
    boxes = torch.tensor([one['bbox'] for one in own], dtype=torch.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = {
        'bboxes': boxes,
        'scores': torch.tensor([one['score'] for one in own]),
        'labels': torch.tensor([names.index(of_id[one['category_id']]) for one in own], dtype=torch.long),
    }
    if masks:
        decoded = [rle.decode(one['segmentation']) for one in own]
        found['masks'] = torch.tensor(np.array(decoded).reshape(-1, *SIZE)).bool()
    return {'img_id': image, 'pred_instances': found}


def written(folder, content, name='ann.json'):
    path = folder / name
    path.write_text(json.dumps(content))
    return str(path)
