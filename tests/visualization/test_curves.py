import json

import cv2
import numpy as np
import pytest

from atss_ext.visualization.curves import Scalars, draw_curves, read_scalars
from atss_ext.visualization.page import DISTINCT


def train_row(step, loss):
    return {
        'lr': 0.1,
        'loss': loss,
        'loss_cls': loss / 2,
        'loss_bbox': loss / 4,
        'epoch': 1,
        'iter': step,
        'step': step,
    }


def val_row(step, ap, ap50, ap75):
    return {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': ap50, 'coco/bbox_mAP_75': ap75, 'step': step}


def write(path, rows, tail=''):
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows) + tail)
    return path


def test_a_resumed_training_reads_as_one(tmp_path):
    first = write(
        tmp_path / 'a.json', [train_row(10, 3.0), train_row(20, 2.0), val_row(1, 0.1, 0.2, 0.05)], '{"los'
    )
    second = write(tmp_path / 'b.json', [train_row(20, 1.9), train_row(30, 1.5), val_row(2, 0.3, 0.5, 0.2)])
    scalars = read_scalars([first, second])
    assert {step: row['loss'] for step, row in scalars.train.items()} == {10: 3.0, 20: 1.9, 30: 1.5}
    assert [scalars.val[epoch]['bbox_mAP_50'] for epoch in (1, 2)] == [0.2, 0.5]


def test_files_that_are_no_scalars_are_refused(tmp_path):
    bad = tmp_path / 'bad.json'
    bad.write_text('hello\n{"loss": 1, "step": 1}\n')
    with pytest.raises(ValueError, match=r"bad.json line 1 is not JSON: 'hello'; is it a scalars.json\?"):
        read_scalars([bad])
    with pytest.raises(
        ValueError, match=r'scalars holds no loss: train at least one logging interval first.'
    ):
        draw_curves(tmp_path / 'page.png', Scalars({}, {}))


def test_ap_lines_lie_where_their_values_are(tmp_path):
    train = {step: train_row(step, 3.0 - step / 50) for step in range(10, 110, 10)}
    values = {1: (0.1, 0.2, 0.3), 2: (0.4, 0.5, 0.6), 4: (0.5, 0.9, 0.7)}
    val = {
        epoch: dict(zip(('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75'), aps, strict=True))
        for epoch, aps in values.items()
    }
    left, top, width, height = draw_curves(tmp_path / 'page.png', Scalars(train, val))
    page = cv2.imread(str(tmp_path / 'page.png'))[..., ::-1].astype(int)
    for epoch, aps in values.items():
        for ap, colour in zip(aps, DISTINCT[:3], strict=True):
            # AP 0 is the lower edge of the plot, 1 the upper; epoch 0 the left one, the last epoch the right.
            column, row = round(left + width * epoch / 4), round(top + height * (1 - ap))
            assert np.abs(page[row, column] - colour).max() < 30, (epoch, ap)


def test_the_sum_of_losses_falls_from_left_to_right(tmp_path):
    train = {step: train_row(step, 3.0 - step / 50) for step in range(10, 110, 10)}
    draw_curves(tmp_path / 'page.png', Scalars(train, {}))
    page = cv2.imread(str(tmp_path / 'page.png'))[..., ::-1].astype(int)
    line = (np.abs(page[75:365, 75:535] - 40).max(axis=2) < 12) & (np.ptp(page[75:365, 75:535], axis=2) < 8)
    rows = [np.flatnonzero(line[:, column]).mean() for column in (60, 200, 300)]
    assert rows[0] + 20 < rows[1] < rows[2] - 20
