"""Detections written to files: as COCO results, or as mmdet's own tools read them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.evaluation import DumpDetResults
from mmdet.structures.mask import encode_mask_results
from mmengine.evaluator import BaseMetric


class DumpCocoResults(BaseMetric):
    """Write detections in COCO's result format: readable by pycocotools, and safe to load.

    Args:
        path: the JSON file.
        category_ids: the category id of each label, in the order of the labels.

    One entry a detection: ``{image_id, category_id, bbox: [x, y, width, height], score}`` in
    pixels of the original image, and ``segmentation`` (run lengths) where the model makes masks.
    """

    def __init__(self, path: str, category_ids: Sequence[int]) -> None:
        super().__init__(prefix='dump')
        self.path = Path(path)
        self.category_ids = list(category_ids)

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Take the detections of a batch; one result an image, so that padded images can be dropped."""
        for sample in data_samples:
            self.results.append(coco_results(sample['img_id'], sample['pred_instances'], self.category_ids))

    def compute_metrics(self, results: list[list[dict[str, Any]]]) -> dict[str, float]:
        """Write the file, on the main process."""
        entries = [entry for image in results for entry in image]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(entries), encoding='utf-8')
        return {}


class DumpDetections(DumpDetResults):
    """mmdet's pickle file, also of a model whose masks are run lengths already.

    A mask is written as mmdet writes those it encodes: ``{'size': [H, W], 'counts': bytes}``. Whatever else
    a model says of its instances (``names``) is kept.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Take the detections of a batch."""
        for sample in data_samples:
            instances = sample.get('pred_instances', {})
            masks = instances.get('masks')
            if not isinstance(masks, list):
                super().process(data_batch, [sample])
                continue
            others = {name: value for name, value in instances.items() if name != 'masks'}
            super().process(data_batch, [{**sample, 'pred_instances': others}])
            self.results[-1]['pred_instances']['masks'] = [_as_encoded(mask) for mask in masks]


def coco_results(image_id: Any, detections: Any, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return the COCO results of one image.

    Args:
        image_id: its id.
        detections: a mapping with ``bboxes`` [N, 4] (x1, y1, x2, y2), ``scores`` [N], ``labels`` [N]
            and perhaps ``masks`` [N, H, W] (or N run lengths) and ``names`` (N, of an open-ended model).
        category_ids: the category id of each label; an open-ended model has one label, and its names are
            written as ``name``.
    """
    boxes = detections['bboxes'].cpu().double()
    boxes[:, 2:] -= boxes[:, :2]
    masks = _run_lengths(detections['masks']) if 'masks' in detections else None
    entries = []
    rows = zip(boxes.tolist(), detections['scores'].tolist(), detections['labels'].tolist(), strict=True)
    for index, (box, score, label) in enumerate(rows):
        entry = {'image_id': image_id, 'category_id': category_ids[label], 'bbox': box, 'score': score}
        if masks is not None:
            entry['segmentation'] = masks[index]
        if 'names' in detections:
            entry['name'] = detections['names'][index]
        entries.append(entry)
    return entries


def _run_lengths(masks: Any) -> list[dict[str, Any]]:
    encoded = encode_mask_results(masks.cpu().numpy()) if hasattr(masks, 'cpu') else masks
    return [
        {**mask, 'counts': mask['counts'].decode() if isinstance(mask['counts'], bytes) else mask['counts']}
        for mask in encoded
    ]


def _as_encoded(mask: dict[str, Any]) -> dict[str, Any]:
    """Run lengths as pycocotools' ``encode`` returns them."""
    counts = mask['counts']
    return {'size': list(mask['size']), 'counts': counts.encode() if isinstance(counts, str) else counts}
