"""A detector with deformable convolutions trains from its config, without a compiled mmcv."""

# First, because it makes mmcv.ops importable without a compiled mmcv.
import atss_ext  # noqa: F401

# isort: split
import mmcv.ops.modulated_deform_conv as dcn
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData

NORM = dict(type='GN', num_groups=4)
CONFIG = dict(
    type='ATSS',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    # mmdet's ResNet-18 has no deformable blocks; eight base channels make a ResNet-50 small.
    backbone=dict(
        type='ResNet',
        depth=50,
        base_channels=8,
        stem_channels=8,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=NORM,
        norm_eval=False,
        # A residual branch that starts at zero hands no gradient to its offsets.
        zero_init_residual=False,
        dcn=dict(type='DCNv2', deform_groups=2, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True),
    ),
    neck=dict(
        type='FPN', in_channels=[64, 128, 256], out_channels=16, start_level=0,
        add_extra_convs='on_output', num_outs=5,
    ),
    bbox_head=dict(
        type='ATSSHead',
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        norm_cfg=NORM,
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1,
            strides=[8, 16, 32, 64, 128],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]
        ),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=50, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.6), max_per_img=10),
)  # fmt: skip


@pytest.fixture
def detector():
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(CONFIG))
    model.init_weights()
    return model


def batch():
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)))
    boxes = torch.tensor([[4.0, 6, 40, 50], [30, 8, 60, 30]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
    return dict(inputs=[image], data_samples=[sample])


def offset_layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, dcn.ModulatedDeformConv2dPack)}


def gathered_deform_conv(x, offset, mask, weight, bias, stride, padding, dilation, groups, offset_groups):
    """Deformable convolution by grid_sample, differentiable by itself; square kernels, one weight group."""
    size = weight.size(-1)
    (batch_size, _, height, width), (out_h, out_w) = x.shape, offset.shape[2:]
    offset = offset.view(batch_size, offset_groups, size, size, 2, out_h, out_w)
    mask = mask.view(batch_size, offset_groups, 1, size, size, out_h, out_w)
    tap = torch.arange(size) * dilation[0] - padding[0]
    y = offset[:, :, :, :, 0] + tap[:, None, None, None] + (torch.arange(out_h) * stride[0])[:, None]
    x_at = offset[:, :, :, :, 1] + tap[:, None, None] + torch.arange(out_w) * stride[1]
    grid = torch.stack((2 * (x_at + 0.5) / width - 1, 2 * (y + 0.5) / height - 1), -1)
    sampled = F.grid_sample(
        x.reshape(batch_size * offset_groups, -1, height, width),
        grid.flatten(0, 1).flatten(1, 3),
        padding_mode='zeros', align_corners=False,
    ).view(batch_size, offset_groups, -1, size, size, out_h, out_w)  # fmt: skip
    sampled = (sampled * mask).flatten(1, 2)
    return torch.einsum('ocij,bcijhw->bohw', weight, sampled)


def test_a_dcn_config_trains(detector):
    layers = offset_layers(detector)
    assert len(layers) == 13
    wrapper = OptimWrapper(torch.optim.SGD(detector.parameters(), lr=1e-3))
    losses = [sum(detector.train_step(batch(), wrapper)[f'loss_{k}'] for k in ('cls', 'bbox', 'centerness'))
              for _ in range(3)]  # fmt: skip
    assert all(loss.isfinite() for loss in losses)
    # It is one image, seen three times.
    assert losses[2] < losses[0]
    for name, layer in layers.items():
        # They start at zero.
        assert layer.conv_offset.weight.abs().sum() > 0, name
    detector.eval()
    with torch.no_grad():
        (result,) = detector.test_step(batch())
    assert len(result.pred_instances) == 10
    assert result.pred_instances.bboxes.isfinite().all()


def test_gradients_through_the_detector_are_those_of_another_implementation(detector, monkeypatch):
    for layer in offset_layers(detector).values():
        # Away from whole pixels, where the bilinear kernel has a kink.
        torch.nn.init.normal_(layer.conv_offset.weight, std=0.05)
        torch.nn.init.normal_(layer.conv_offset.bias, std=0.3)
    data = detector.data_preprocessor(batch(), training=True)
    outcomes = []
    for replacement in (dcn.modulated_deform_conv2d, gathered_deform_conv):
        monkeypatch.setattr(dcn, 'modulated_deform_conv2d', replacement)
        detector.double().zero_grad()
        inputs, samples = data['inputs'].double(), data['data_samples']
        losses = detector.loss(inputs, samples)
        total = sum(
            torch.as_tensor(part).sum()
            for value in losses.values()
            for part in (value if isinstance(value, list) else [value])
        )
        total.backward()
        grads = {n: p.grad.clone() for n, p in detector.named_parameters() if p.grad is not None}
        outcomes.append((total.detach(), grads))
    (loss, grads), (expected, expected_grads) = outcomes
    torch.testing.assert_close(loss, expected)
    assert grads.keys() == expected_grads.keys()
    offsets = [name for name in grads if 'conv_offset' in name]
    assert len(offsets) == 26
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], msg=name)
    assert all(grads[name].abs().sum() > 0 for name in offsets)
