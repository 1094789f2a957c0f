"""What the ATSS paper's tables and the official model zoo say, as one literal table: a line a config.

Read off arXiv 1912.02424 and the official repository (sfzhang15/ATSS), not off the configs; docs/paper.md and
the configs are compared with it. Columns:

- config: below configs/paper, in the folder its name begins with.
- AP: the paper's, on COCO's val2017 or test-dev; ``-`` where it has none.
- assigner: a key of ``ASSIGNERS``, or ``atss-`` and k.
- anchors: base scale in strides, scales an octave, ratios (height to width).
- loss: of boxes, a key of ``LOSSES``. head: g group norm, c centerness, s scale a level. reg: from where.
- ep: epochs, a key of ``MILESTONES``. side: the shorter one of a training image, ``a..b`` for all between.
- net: a key of ``BACKBONES``. dcn: a key of ``DCN_STAGES``. tta: see ``TTA``.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

PAPER = Path(__file__).resolve().parents[2] / 'configs/paper'

TABLE = """
# config                           AP   on   assigner anchors     loss head reg   ep side     net    dcn  tta
table1_retinanet                   32.5 val  iou      8,1,1       l1   ---  box   12 800      r50    -    -
table1_retinanet_gn                33.4 val  iou      8,1,1       l1   g--  box   12 800      r50    -    -
table1_retinanet_giou              34.9 val  iou      8,1,1       giou g--  box   12 800      r50    -    -
table1_retinanet_in-gt             35.3 val  iou-in   8,1,1       giou g--  box   12 800      r50    -    -
table1_retinanet_centerness        36.8 val  iou-in   8,1,1       giou gc-  box   12 800      r50    -    -
table1_retinanet_scalar            37.0 val  iou-in   8,1,1       giou gcs  box   12 800      r50    -    -
table1_fcos                        37.8 val  ssc      8,1,1       giou gcs  point 12 800      r50    -    -
table2_iou-box                     37.0 val  iou-in   8,1,1       giou gcs  box   12 800      r50    -    -
table2_iou-point                   36.9 val  iou-in   8,1,1       giou gcs  point 12 800      r50    -    -
table2_ssc-box                     37.8 val  ssc      8,1,1       giou gcs  box   12 800      r50    -    -
table2_ssc-point                   37.8 val  ssc      8,1,1       giou gcs  point 12 800      r50    -    -
table3_retinanet                   37.0 val  iou-in   8,1,1       giou gcs  box   12 800      r50    -    -
table3_retinanet_atss              39.3 val  atss-9   8,1,1       giou gcs  box   12 800      r50    -    -
table3_fcos                        37.8 val  ssc      8,1,1       giou gcs  point 12 800      r50    -    -
table3_fcos_center-sampling        38.6 val  ssc-1.5  8,1,1       giou gcs  point 12 800      r50    -    -
table3_fcos_atss                   39.2 val  atss-9   8,1,1       giou gcs  point 12 800      r50    -    -
table4_k3                          38.0 val  atss-3   8,1,1       giou gcs  box   12 800      r50    -    -
table4_k5                          38.8 val  atss-5   8,1,1       giou gcs  box   12 800      r50    -    -
table4_k7                          39.1 val  atss-7   8,1,1       giou gcs  box   12 800      r50    -    -
table4_k9                          39.3 val  atss-9   8,1,1       giou gcs  box   12 800      r50    -    -
table4_k11                         39.1 val  atss-11  8,1,1       giou gcs  box   12 800      r50    -    -
table4_k13                         39.0 val  atss-13  8,1,1       giou gcs  box   12 800      r50    -    -
table4_k15                         39.1 val  atss-15  8,1,1       giou gcs  box   12 800      r50    -    -
table4_k17                         39.2 val  atss-17  8,1,1       giou gcs  box   12 800      r50    -    -
table4_k19                         38.9 val  atss-19  8,1,1       giou gcs  box   12 800      r50    -    -
table5_5s                          39.0 val  atss-9   5,1,1       giou gcs  box   12 800      r50    -    -
table5_6s                          39.2 val  atss-9   6,1,1       giou gcs  box   12 800      r50    -    -
table5_7s                          39.3 val  atss-9   7,1,1       giou gcs  box   12 800      r50    -    -
table5_8s                          39.3 val  atss-9   8,1,1       giou gcs  box   12 800      r50    -    -
table5_9s                          38.9 val  atss-9   9,1,1       giou gcs  box   12 800      r50    -    -
table6_1-4                         39.1 val  atss-9   8,1,0.25    giou gcs  box   12 800      r50    -    -
table6_1-2                         39.0 val  atss-9   8,1,0.5     giou gcs  box   12 800      r50    -    -
table6_1-1                         39.3 val  atss-9   8,1,1       giou gcs  box   12 800      r50    -    -
table6_2-1                         39.3 val  atss-9   8,1,2       giou gcs  box   12 800      r50    -    -
table6_4-1                         39.1 val  atss-9   8,1,4       giou gcs  box   12 800      r50    -    -
table7_retinanet                   36.3 val  iou      4,3,0.5,1,2 l1   ---  box   12 800      r50    -    -
table7_improved                    38.4 val  iou-in   4,3,0.5,1,2 giou gcs  box   12 800      r50    -    -
table7_atss_3x3                    39.2 val  atss-9   4,3,0.5,1,2 giou gcs  box   12 800      r50    -    -
table7_atss_3x1                    39.3 val  atss-9   4,3,1       giou gcs  box   12 800      r50    -    -
table7_atss_1x3                    39.2 val  atss-9   8,1,0.5,1,2 giou gcs  box   12 800      r50    -    -
table7_atss_1x1                    39.3 val  atss-9   8,1,1       giou gcs  box   12 800      r50    -    -
table8_r101                        43.6 test atss-9   8,1,1       giou gcs  box   24 640..800 r101   -    -
table8_x101-32x8d                  45.1 test atss-9   8,1,1       giou gcs  box   24 640..800 x32x8d -    -
table8_x101-64x4d                  45.6 test atss-9   8,1,1       giou gcs  box   24 640..800 x64x4d -    -
table8_r101-dcnv2                  46.3 test atss-9   8,1,1       giou gcs  box   24 640..800 r101   c3-5 -
table8_x101-32x8d-dcnv2            47.7 test atss-9   8,1,1       giou gcs  box   24 640..800 x32x8d c4-5 -
table8_x101-64x4d-dcnv2            47.7 test atss-9   8,1,1       giou gcs  box   24 640..800 x64x4d c4-5 -
table8_x101-32x8d-dcnv2_ms-test    50.6 test atss-9   8,1,1       giou gcs  box   24 640..800 x32x8d c4-5 yes
table8_x101-64x4d-dcnv2_ms-test    50.7 test atss-9   8,1,1       giou gcs  box   24 640..800 x64x4d c4-5 yes
zoo_r50_1x                         39.3 val  atss-9   8,1,1       giou gcs  box   12 800      r50    -    -
zoo_r50-dcnv2_1x                   43.2 val  atss-9   8,1,1       giou gcs  box   12 800      r50    c3-5 -
zoo_r101_1x                        -    val  atss-9   8,1,1       giou gcs  box   12 800      r101   -    -
zoo_r101-dcnv2_1x                  -    val  atss-9   8,1,1       giou gcs  box   12 800      r101   c3-5 -
zoo_r101_ms-2x                     43.5 val  atss-9   8,1,1       giou gcs  box   24 640..800 r101   -    -
zoo_r101-dcnv2_ms-2x               46.1 val  atss-9   8,1,1       giou gcs  box   24 640..800 r101   c3-5 -
zoo_x101-32x8d_ms-2x               44.8 val  atss-9   8,1,1       giou gcs  box   24 640..800 x32x8d -    -
zoo_x101-32x8d-dcnv2_ms-2x         47.7 val  atss-9   8,1,1       giou gcs  box   24 640..800 x32x8d c4-5 -
zoo_x101-64x4d_ms-2x               45.5 val  atss-9   8,1,1       giou gcs  box   24 640..800 x64x4d -    -
zoo_x101-64x4d-dcnv2_ms-2x         47.7 val  atss-9   8,1,1       giou gcs  box   24 640..800 x64x4d c4-5 -
zoo_x101-32x8d-dcnv2_ms-2x_ms-test -    val  atss-9   8,1,1       giou gcs  box   24 640..800 x32x8d c4-5 yes
zoo_x101-64x4d-dcnv2_ms-2x_ms-test -    val  atss-9   8,1,1       giou gcs  box   24 640..800 x64x4d c4-5 yes
"""


@dataclass(frozen=True)
class Row:
    """A line of the table, cell by cell."""

    config: str
    ap: str
    on: str
    assigner: str
    anchors: str
    loss: str
    head: str
    regression: str
    epochs: str
    side: str
    net: str
    dcn: str
    tta: str

    @property
    def file(self) -> str:
        """Below configs/paper."""
        return f'{self.config.split("_")[0]}/{self.config}.py'


ROWS = {row.config: row for row in (Row(*line.split()) for line in TABLE.strip().splitlines()[1:])}

# Every argument of every assigner, those left to their defaults too.
MAX_IOU = {
    'pos_iou_thr': 0.5, 'neg_iou_thr': 0.4, 'min_pos_iou': 0, 'gt_max_assign_all': True, 'ignore_iof_thr': -1,
    'ignore_wrt_candidates': True, 'match_low_quality': True, 'gpu_assign_thr': -1, 'iou_calculator': None,
    'perm_repeat_gt_cfg': None, 'low_quality_gt': 'best',
}  # fmt: skip
SSC = {
    'regress_ranges': ((-1, 64), (64, 128), (128, 256), (256, 512), (512, float('inf'))),
    'center_margin': 0.01, 'strides': None, 'plus_one': False,
}  # fmt: skip
ATSS = {
    'candidates': 'per_location', 'iou_calculator': None, 'ignore_iof_thr': -1, 'ensure_positive': False,
}  # fmt: skip
ASSIGNERS: dict[str, tuple[str, dict[str, Any]]] = {
    'iou': ('MaxIoUAssigner', {**MAX_IOU, 'center_inside': False}),
    'iou-in': ('MaxIoUAssigner', {**MAX_IOU, 'center_inside': True}),
    'ssc': ('SpatialScaleAssigner', {**SSC, 'center_sampling_radius': None}),
    'ssc-1.5': ('SpatialScaleAssigner', {**SSC, 'center_sampling_radius': 1.5}),
}
LOSSES: dict[str, dict[str, Any]] = {
    # Sum over four numbers and positives, divided by four times the positives.
    'l1': {'type': 'SmoothL1Loss', 'beta': 0.11, 'loss_weight': 0.25},
    'giou': {'type': 'GIoULoss', 'loss_weight': 2.0},
}
MILESTONES = {'12': [8, 11], '24': [16, 22]}  # 60k and 80k of 90k iterations; 120k and 160k of 180k
# Type, depth, groups, width of a group at the first stage (None: a ResNet's), weights, whether BN learns.
BACKBONES = {
    'r50': ('ResNet', 50, 1, None, 'torchvision://resnet50', True),
    'r101': ('ResNet', 101, 1, None, 'torchvision://resnet101', True),
    'x32x8d': ('ResNeXt', 101, 32, 8, 'open-mmlab://detectron2/resnext101_32x8d', False),
    'x64x4d': ('ResNeXt', 101, 64, 4, 'open-mmlab://resnext101_64x4d', True),
}
# By the weights: mean, deviation, whether OpenCV's blue-first images are turned round.
RGB = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True)
PREPROCESSING = {
    'r50': RGB, 'r101': RGB, 'x64x4d': RGB,
    'x32x8d': ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395], False),
}  # fmt: skip
DCN_STAGES = {'-': (False,) * 4, 'c3-5': (False, True, True, True), 'c4-5': (False, False, True, True)}
# Multi-scale testing of the official code: shorter side, longest side, and the roots of the areas
# between which boxes count, measured at that size. Each size also mirrored.
TTA = (
    (800, 1333, 0, float('inf')),
    (400, 1333, 96, 10000),
    (500, 1333, 96, 10000),
    (600, 1333, 64, 10000),
    (640, 1333, 64, 10000),
    (700, 1333, 64, 10000),
    (900, 3000, 0, 10000),
    (1000, 3000, 0, 10000),
    (1100, 3000, 0, 256),
    (1200, 3000, 0, 256),
    (1300, 3000, 0, 192),
    (1400, 3000, 0, 192),
    (1800, 3000, 0, 96),
)


def assigner_of(row: Row) -> tuple[str, dict[str, Any]]:
    """Class and arguments of a row's assigner."""
    if row.assigner.startswith('atss-'):
        return 'ATSSAssigner', {**ATSS, 'topk': int(row.assigner.removeprefix('atss-'))}
    return ASSIGNERS[row.assigner]


def anchors_of(row: Row) -> tuple[float, int, list[float]]:
    """Base scale, scales an octave and ratios of a row's anchors."""
    base, scales, *ratios = map(float, row.anchors.split(','))
    return base, int(scales), ratios


def sides_of(row: Row) -> list[int]:
    """Every shorter side a training image of a row may have."""
    first, _, last = row.side.partition('..')
    return list(range(int(first), int(last or first) + 1))


@cache
def config_of(row: Row) -> Config:
    """The config of a row, read once: whoever changes it takes a copy."""
    return Config.fromfile(PAPER / row.file)


def plain(value: Any) -> Any:
    """Without the scope that mmengine marks inherited parts with, which is mmdet's everywhere."""
    if isinstance(value, dict):
        return ConfigDict({key: plain(item) for key, item in value.items() if key != '_scope_'})
    return [plain(item) for item in value] if isinstance(value, list) else value
