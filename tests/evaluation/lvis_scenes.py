"""Small LVIS files with results, and LVIS's figures written out in plain Python as an oracle."""

import random

import numpy as np
from pycocotools import mask as rle

from atss_ext.evaluation.lvis import LvisTruth, from_coco, lvis_figures

SIZE = (120, 160)
NAMES = ('axe', 'bag', 'cup', 'dog', 'elk')
BACKEND = 'reference'
"""Whose figures :func:`figures` gives; a test module may say another."""

RANGES = {'': (0, 1e10), 's': (0, 32**2), 'm': (32**2, 96**2), 'l': (96**2, 1e10)}


def content(images, annotations, frequencies='rrccf'):
    """An LVIS file: images as {id: (negative, not exhaustive)}, annotations as (image, category, box)."""
    return {
        'images': [
            {'id': number, 'height': SIZE[0], 'width': SIZE[1], 'file_name': '', 'neg_category_ids': negative,
             'not_exhaustive_category_ids': partial} for number, (negative, partial) in images.items()
        ],
        'annotations': [
            {'id': number, 'image_id': image, 'category_id': category, 'bbox': box, 'area': box[2] * box[3],
             'segmentation': polygon(box)} for number, (image, category, box) in enumerate(annotations, 1)
        ],
        'categories': [
            {'id': 10 * number, 'name': name, 'frequency': frequency}
            for number, (name, frequency) in enumerate(zip(NAMES, frequencies, strict=True), 1)
        ],
    }  # fmt: skip


def polygon(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def mask_of(box, bite=0):
    mask = np.zeros(SIZE, np.uint8, order='F')
    x, y, w, h = box
    mask[y : y + h, x : x + w] = 1
    mask[y : y + bite, x : x + bite] = 0
    return mask


def result(image, category, score, box, bite=0):
    return {'image_id': image, 'category_id': category, 'score': score, 'bbox': box,
            'segmentation': rle.encode(mask_of(box, bite))}  # fmt: skip


def figures(file, results, iou_type='bbox', **settings):
    truth = LvisTruth(file)
    return lvis_figures(truth, from_coco(results, truth, iou_type), **{'backend': BACKEND, **settings})


# The definitions in plain Python: one category, range of areas and threshold at a time.


def plain_iou(one, two, iou_type):
    if iou_type == 'segm':
        a, b = one['mask'], two['mask']
        both = int((a & b).sum())
        return both / int((a | b).sum())
    (x1, y1, w1, h1), (x2, y2, w2, h2) = one['bbox'], two['bbox']
    both = max(min(x1 + w1, x2 + w2) - max(x1, x2), 0) * max(min(y1 + h1, y2 + h2) - max(y1, y2), 0)
    return both / (w1 * h1 + w2 * h2 - both)


def plain_limit(results, protocol, limit):
    key = 'image_id' if protocol == 'standard' else 'category_id'
    kept = []
    for group in sorted({one[key] for one in results}):
        members = sorted((one for one in results if one[key] == group), key=lambda one: one['image_id'])
        kept += sorted(members, key=lambda one: -one['score'])[:limit]
    return kept


def plain_image(objects, found, partial, threshold, area, iou_type):
    """Score and kind ('hit', 'miss') of the detections of one image that count."""
    free = list(range(len(objects)))
    rated = []
    counts = [area[0] <= one['area'] <= area[1] for one in objects]
    for one in sorted(found, key=lambda one: -one['score']):
        overlaps = {place: plain_iou(one, objects[place], iou_type) for place in free}
        possible = [(counts[place], iou, place) for place, iou in overlaps.items() if iou >= threshold]
        if possible:
            counted, _, place = max(possible)
            free.remove(place)
            rated += [(one['score'], 'hit')] if counted else []
        elif not partial and area[0] <= one['area'] <= area[1]:
            rated.append((one['score'], 'miss'))
    return rated, sum(counts)


def plain_category(file, results, category, threshold, area, iou_type):
    """Average precision and recall, or None without objects."""
    rated, total = [], 0
    for image in sorted(file['images'], key=lambda one: one['id']):
        place = (image['id'], category)
        objects, found = (
            [one for one in some if (one['image_id'], one['category_id']) == place and one['area'] > 0]
            for some in (file['annotations'], results)
        )
        if objects or category in image['neg_category_ids']:
            partial = category in image['not_exhaustive_category_ids']
            more, count = plain_image(objects, found, partial, threshold, area, iou_type)
            rated, total = rated + more, total + count
    if not total:
        return None
    points, hits = [], 0
    for number, (_, kind) in enumerate(sorted(rated, key=lambda one: -one[0]), 1):
        hits += kind == 'hit'
        points.append((hits / total, hits / number))
    best = [max((p for r, p in points if r >= recall), default=0) for recall in np.linspace(0, 1, 101)]
    return sum(best) / 101, hits / total


def plain_figures(file, results, iou_type, protocol, limit):
    results = plain_limit(results, protocol, limit)
    table = {
        (category['id'], round(100 * threshold), name): plain_category(
            file, results, category['id'], threshold, area, iou_type
        )
        for category in file['categories']
        for threshold in np.linspace(0.5, 0.95, 10)
        for name, area in RANGES.items()
    }
    groups = {one['id']: one['frequency'] for one in file['categories']}

    def mean(figure, keep):
        known = [value[figure] for key, value in table.items() if value is not None and keep(*key)]
        return sum(known) / len(known) if known else -1

    out = {f'AP{size}': mean(0, lambda c, t, a, size=size: a == size) for size in RANGES}
    out.update({f'AP{at}': mean(0, lambda c, t, a, at=at: not a and t == at) for at in (50, 75)})
    out.update({f'AP{g}': mean(0, lambda c, t, a, g=g: not a and groups[c] == g) for g in 'rcf'})
    mark = f'@{limit}' if protocol == 'standard' else ''
    out.update({f'AR{size}{mark}': mean(1, lambda c, t, a, size=size: a == size) for size in RANGES})
    return out


def random_box(chance):
    x, y = chance.randrange(0, 60), chance.randrange(0, 50)
    side = chance.choice([20, 32, 50, 100])
    return [x, y, min(side, SIZE[1] - x), min(side, SIZE[0] - y)]


def near(chance, box):
    x, y, w, h = box
    return [x, y, max(w - chance.choice([0, 0, 2, 5, 10]), 1), max(h - chance.choice([0, 0, 3, 8]), 1)]


def random_scene(seed, iou_type):
    """A file and results that hit, miss, tie, have no area, and name categories nobody looked for."""
    chance = random.Random(seed)
    identities = [10, 20, 30, 40, 50]
    some = [(chance.randrange(1, 9), chance.choice(identities), random_box(chance)) for _ in range(24)]
    lists = {n: (chance.sample(identities, 2), chance.sample(identities, 1)) for n in range(11, 0, -1)}
    file = content(lists, [*some, *some[:3]])  # some objects twice: equal IoUs
    results = []
    for image, category, box in some * 3:
        box = near(chance, box) if chance.random() < 0.7 else random_box(chance)
        category = category if chance.random() < 0.8 else chance.choice(identities)
        image = image if chance.random() < 0.9 else chance.randrange(1, 12)
        one = result(image, category, chance.randrange(6) / 5, box, chance.choice([0, 0, 8]))
        results.append({**one, 'mask': rle.decode(one['segmentation']).astype(bool)})
    results += [{**results[0], 'bbox': [3, 3, 0, 9], 'segmentation': rle.encode(mask_of([0, 0, 0, 0])),
                 'mask': np.zeros(SIZE, bool), 'score': 1.0}]  # fmt: skip
    for one in file['annotations']:
        one['mask'] = mask_of(one['bbox']).astype(bool)
    file['annotations'][5]['area'] = 0  # as if it were not there
    for one in results:
        w, h = one['bbox'][2:]
        one['area'] = w * h if iou_type == 'bbox' else int(one['mask'].sum())
    return file, results


def adversarial_scene(seed):
    """As a random scene, and what LVIS's own files lack: ignored objects, edges, huge and flat ones, crowds.

    Scores are few, so that they tie within images and between them; boxes have fractions; of 13 images some
    have nothing, and their ids are in no order.
    """
    chance = random.Random(seed)
    identities = [10, 20, 30, 40, 50]
    looked_for = identities[: chance.choice([4, 5])]  # of the last there may be no object at all
    images = chance.sample(range(1, 99), 13)
    some = [(chance.choice(images[:9]), chance.choice(looked_for), random_box(chance)) for _ in range(40)]
    lists = {n: (chance.sample(identities, 2), chance.sample(identities, 2)) for n in images}
    file = content(lists, [*some, *some[:5]], chance.choice(['rrccf', 'fffff']))
    for one in file['annotations']:
        one['ignore'] = int(chance.random() < 0.2)
        one['iscrowd'] = int(chance.random() < 0.1)
        one['area'] = chance.choice([one['area']] * 4 + [0, 32**2, 96**2, 32**2 + 1e-9, 1e10, 1e11])
    file['annotations'][0]['bbox'] = [5, 5, 0, 30]
    results = []
    for image, category, box in some * 4:
        box = near(chance, box) if chance.random() < 0.7 else random_box(chance)
        if chance.random() < 0.2:
            category, image = chance.choice(identities), chance.choice(images)
        one = result(image, category, chance.randrange(4) / 3, box, chance.choice([0, 0, 8]))
        shift = chance.choice([0, 0.5, -0.25])
        results.append({**one, 'bbox': [box[0] + shift, *box[1:]]})
    results += [dict(results[0], bbox=[3, 3, 0, 9], score=1.0), dict(results[1], category_id=60)]
    chance.shuffle(results)
    return file, results
