"""tools/test.py --tta with the voting model: images resized and flipped, a detector that sees colours."""

import json

import pytest

CONFIG = """
_base_ = './tiny.py'
model = dict(_delete_=True, type='atss_ext.SeesColours')
tta_model = dict(
    type='atss_ext.ATSSTTA',
    area_ranges=[((64, 64), {small}), ((128, 128), {large})],
    max_per_img=10)
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(64, 64), keep_ratio=True),
             dict(type='Resize', scale=(128, 128), keep_ratio=True)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [dict(type='PackDetInputs', meta_keys=(
                'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale', 'scale_factor', 'flip',
                'flip_direction'))]])]
"""


@pytest.fixture(autouse=True)
def sees_colours():
    """A detector of the box around pixels that are green (class 0) or magenta (class 1)."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.model import BaseModel
    from mmengine.structures import InstanceData

    from atss_ext.registry import MODELS

    class SeesColours(BaseModel):
        has_own_weights = True  # nothing to load

        def forward(self, inputs, data_samples=None, mode='predict'):
            return [self.detect(*pair) for pair in zip(inputs, data_samples, strict=True)]

        def detect(self, pixels: torch.Tensor, sample: DetDataSample) -> DetDataSample:
            boxes, labels = [], []
            for label, channel in enumerate((1, 2)):  # BGR: nothing else is as bright in green, or in red
                rows, columns = (pixels[channel] > 130).nonzero(as_tuple=True)
                if len(rows):
                    labels.append(label)
                    boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            width, height = sample.scale_factor
            found = torch.tensor(boxes).reshape(-1, 4) / torch.tensor([width, height, width, height])
            # As many score points as the view is large, a few more where it is flipped.
            score = 0.4 * width + 0.05 * sample.flip
            sample.pred_instances = InstanceData(
                bboxes=found, labels=torch.tensor(labels), scores=torch.full((len(boxes),), score)
            )
            return sample

    MODELS.register_module(name='SeesColours', module=SeesColours, force=True)
    yield
    MODELS.module_dict.pop('SeesColours')


def run(tiny, in_process, tmp_path, small, large) -> list[tuple]:
    config = tiny.write('tta.py', CONFIG.format(small=small, large=large))
    code, said = in_process('test.py', config, 'none', '--tta', '--out', tmp_path / 'out.json')
    assert code == 0, said
    entries = json.loads((tmp_path / 'out.json').read_text())
    return [(e['image_id'], e['category_id'], e['bbox'], round(e['score'], 4)) for e in entries]


def test_boxes_seen_at_every_scale_come_back(tiny, in_process, tmp_path):
    """To the pixel, with the best view's score: both scales and both directions meet in one box."""
    found = run(tiny, in_process, tmp_path, (0, 1000), (0, 1000))
    assert found == [(1, 1, [10, 10, 30, 20], 0.85), (2, 2, [30, 24, 24, 30], 0.85)]


def test_each_scale_answers_for_its_areas(tiny, in_process, tmp_path):
    """The boxes have 600 and 720 pixels, 2,400 and 2,880 at twice the size: each falls to one scale."""
    found = run(tiny, in_process, tmp_path, (0, 26), (50, 1000))
    assert found == [(1, 1, [10, 10, 30, 20], 0.45), (2, 2, [30, 24, 24, 30], 0.85)]


def test_a_scale_without_a_range_is_an_error_in_one_sentence(tiny, in_process, tmp_path):
    config = CONFIG.format(small=(0, 9), large=(0, 9)).replace('((64, 64)', '((60, 60)')
    code, said = in_process('test.py', tiny.write('tta.py', config), 'none', '--tta')
    assert code == 2
    assert said.splitlines()[-1] == (
        'error: ATSSTTA has no area range for the scale (64, 64) of a view, only for (60, 60), (128, 128): '
        'add one to area_ranges of tta_model'
    )
