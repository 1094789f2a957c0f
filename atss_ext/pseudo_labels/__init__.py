"""VL-SAM's output as a training set: names made classes, boxes filtered, masks kept, images split."""

from atss_ext.pseudo_labels.building import (
    REASONS,
    LabelOptions,
    PseudoLabels,
    make_pseudo_labels,
    read_found,
)
from atss_ext.pseudo_labels.classes import (
    MergeMap,
    check_merge_map,
    class_name,
    merge_names,
    read_merge_map,
)
from atss_ext.pseudo_labels.files import FILES, check_folder, dataset_settings, write_pseudo_labels
from atss_ext.pseudo_labels.filters import FilterOptions
from atss_ext.pseudo_labels.report import summary_lines
from atss_ext.pseudo_labels.splitting import split_images

__all__ = [
    'FILES',
    'REASONS',
    'FilterOptions',
    'LabelOptions',
    'MergeMap',
    'PseudoLabels',
    'check_folder',
    'check_merge_map',
    'class_name',
    'dataset_settings',
    'make_pseudo_labels',
    'merge_names',
    'read_found',
    'read_merge_map',
    'split_images',
    'summary_lines',
    'write_pseudo_labels',
]
