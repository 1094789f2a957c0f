"""Open-ended detections collected from all processes: counted, and written with their names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.evaluator import BaseMetric

from atss_ext.registry import METRICS
from atss_ext.vlsam.detections import Detections
from atss_ext.vlsam.export import to_coco


@METRICS.register_module()
class OpenEndedResults(BaseMetric):
    """Count what was found and write it as a COCO data set, whose categories are the names that occurred.

    Scores need a mapping from names to a data set's categories; this metric needs nothing but the images.

    Args:
        outfile: the JSON file; None only counts.
        collect_device: as mmengine's.

    Gives ``images``, ``failed`` (images that no result could be made of), ``objects`` and ``names``
    (different ones).
    """

    default_prefix = 'open_ended'
    needs_labels = False

    def __init__(self, outfile: str | None = None, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.outfile = outfile

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Take one result an image; masks stay run lengths."""
        for sample in data_samples:
            found = sample['pred_instances']
            self.results.append({
                'image_id': sample.get('img_id'),
                'file_name': sample.get('file_name') or sample.get('img_path', str(sample.get('img_id'))),
                'size': tuple(sample['ori_shape'][:2]),
                'boxes': found['bboxes'].cpu().numpy(),
                'scores': found['scores'].cpu().numpy(),
                'names': list(found['names']),
                'run_lengths': list(found['masks']),
                'error': sample.get('vlsam_error'),
            })  # fmt: skip

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Count, and write the file; on the main process."""
        if self.outfile:
            to_coco(
                ((row['file_name'], _detections(row)) for row in results),
                Path(self.outfile),
                image_ids=[row['image_id'] for row in results],
            )
        names = {name for row in results for name in row['names']}
        return {
            'images': len(results),
            'failed': sum(row['error'] is not None for row in results),
            'objects': sum(len(row['names']) for row in results),
            'names': len(names),
        }


def _detections(row: dict[str, Any]) -> Detections:
    fields = ('size', 'boxes', 'scores', 'names', 'run_lengths')
    return Detections(**{field: row[field] for field in fields})
