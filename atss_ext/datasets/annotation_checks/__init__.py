"""What is wrong with a COCO, LVIS or CODA annotation file; needs neither mmdet nor torch."""

from atss_ext.datasets.annotation_checks.checking import (
    Finding,
    Kind,
    Report,
    check_annotations,
    check_file,
    detect_kind,
    read_annotations,
)

__all__ = ['Finding', 'Kind', 'Report', 'check_annotations', 'check_file', 'detect_kind', 'read_annotations']
