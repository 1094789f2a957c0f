"""The demo's three pages, drawn from what a run left: detections, assignment, curves."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from numpy.typing import NDArray

from atss_ext.registry import TASK_UTILS
from atss_ext.visualization.assignment import draw_assignment
from atss_ext.visualization.curves import draw_curves, read_scalars
from atss_ext.visualization.detections import Exhibit, draw_detections

_EXHIBITS = 6


def draw_pages(folder: Path, runner: Runner, split: Path, detections: Path) -> list[Path]:
    """Write ``detections.png``, ``assignment.png`` and ``curves.png``.

    Args:
        folder: of the pages; made if absent.
        runner: that trained or loaded an anchor-based detector and has tested it.
        split: folder of the tested images, with ``images/`` and ``annotations.json``.
        detections: COCO result file of these images.

    Returns:
        the pages.
    """
    content = json.loads((split / 'annotations.json').read_text())
    classes, palette = (
        runner.test_dataloader.dataset.metainfo['classes'],
        runner.test_dataloader.dataset.metainfo['palette'],
    )
    exhibits = coco_exhibits(content, json.loads(detections.read_text()), split / 'images', _EXHIBITS)
    title = f'The first {len(exhibits)} validation images'
    pages = [folder / name for name in ('detections.png', 'assignment.png', 'curves.png')]
    draw_detections(pages[0], exhibits, title, colours=dict(zip(classes, palette, strict=True)))
    assignment_page(pages[1], runner, telling_image(content))
    scalars = read_scalars(sorted(Path(runner.work_dir).glob('*/vis_data/scalars.json')))
    draw_curves(pages[2], scalars, title='Training of the demo')
    return pages


def coco_exhibits(
    content: dict[str, Any], results: Sequence[dict[str, Any]], images: Path, count: int
) -> list[Exhibit]:
    """The first ``count`` images of a COCO annotation file with their truth and their detections."""
    names = {category['id']: category['name'] for category in content['categories']}
    exhibits = []
    for entry in content['images'][:count]:
        truth = [a for a in content['annotations'] if a['image_id'] == entry['id']]
        found = [r for r in results if r['image_id'] == entry['id']]
        exhibits.append(
            Exhibit(
                title=entry['file_name'],
                image=read_image(images / entry['file_name']),
                boxes=_corners(truth),
                names=[names[a['category_id']] for a in truth],
                found_boxes=_corners(found),
                found_names=[names[r['category_id']] for r in found],
                scores=np.array([r['score'] for r in found], dtype=np.float64),
            )
        )
    return exhibits


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H,W,3].

    Raises:
        FileNotFoundError: no readable image is there.
    """
    image = cv2.imread(str(path))
    if image is None:
        raise FileNotFoundError(f'image {path} is missing or cannot be read: draw the dataset again.')
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)


def telling_image(content: dict[str, Any]) -> int:
    """Index of the image whose 3 to 8 objects differ most in size, so that every level has its part."""
    best, index = -1.0, 0
    of_image: dict[int, list[float]] = {}
    for annotation in content['annotations']:
        sides = annotation['bbox'][2:]
        of_image.setdefault(annotation['image_id'], []).append(math.log(max(sides)))
    for number, entry in enumerate(content['images']):
        sizes = sorted(of_image.get(entry['id'], []))
        # A ladder of sizes, rather than one dot beside one giant.
        steps = float(np.std(sizes)) if 3 <= len(sizes) <= 8 else -0.5
        if steps > best:
            best, index = steps, number
    return index


def assignment_page(path: Path, runner: Runner, index: int) -> None:
    """Draw which priors learn which object of test image ``index``, as training would assign them."""
    dataset, model = runner.test_dataloader.dataset, runner.model
    item = dataset[index]
    sample = item['data_samples']
    data = model.data_preprocessor({'inputs': [item['inputs']], 'data_samples': [sample]}, False)
    with torch.no_grad():
        features = model.extract_feat(data['inputs'])
    head = model.bbox_head
    priors = [
        level.cpu()
        for level in head.prior_generator.grid_priors([f.shape[-2:] for f in features], device='cpu')
    ]
    gts = InstanceData(
        bboxes=getattr(sample.gt_instances.bboxes, 'tensor', sample.gt_instances.bboxes).cpu(),
        labels=sample.gt_instances.labels.cpu(),
    )
    assigner = TASK_UTILS.build(runner.cfg.model.train_cfg.assigner)
    sizes = [len(level) for level in priors]
    result = assigner.assign(InstanceData(priors=torch.cat(priors)), sizes, gts)
    names = [dataset.metainfo['classes'][label] for label in gts.labels.tolist()]
    draw_assignment(
        path,
        np.ascontiguousarray(item['inputs'].numpy().transpose(1, 2, 0)[..., ::-1]),
        torch.cat(priors).numpy(),
        sizes,
        result.gt_inds.numpy(),
        gts.bboxes.numpy(),
        names,
        title='Which priors learn which object',
        level_names=[f'stride {stride[0]}' for stride in head.prior_generator.strides],
    )


def _corners(rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    boxes = np.array([row['bbox'] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
