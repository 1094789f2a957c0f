"""Results in the formats that other tools read: COCO json with masks, YOLO boxes, YOLO polygons."""

from atss_ext.vlsam.export.coco import to_coco, to_coco_results
from atss_ext.vlsam.export.polygons import mask_polygon
from atss_ext.vlsam.export.yolo import check_label_names, to_yolo_boxes, to_yolo_polygons

__all__ = [
    'check_label_names',
    'mask_polygon',
    'to_coco',
    'to_coco_results',
    'to_yolo_boxes',
    'to_yolo_polygons',
]
