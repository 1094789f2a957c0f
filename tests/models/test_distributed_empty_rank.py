"""Two real processes (gloo, CPU), one of which has only images without gts."""

import time
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from warm import spawn_warm

SIZE = 128
BOXES = [[[10.0, 20.0, 60.0, 90.0], [70.0, 8.0, 120.0, 50.0]], [[30.0, 30.0, 100.0, 110.0]], [], []]
LABELS = [[0, 2], [1], [], []]


def _head():
    from mmengine.config import ConfigDict

    import atss_ext  # noqa: F401
    from atss_ext.registry import MODELS

    torch.manual_seed(5)
    config = {
        'type': 'atss_ext.ATSSHead', 'num_classes': 3,
        'in_channels': 8, 'feat_channels': 8, 'stacked_convs': 1,
        'norm_cfg': {'type': 'GN', 'num_groups': 4, 'requires_grad': True},
        'anchor_generator': {
            'type': 'AnchorGenerator', 'ratios': [1.0], 'octave_base_scale': 8, 'scales_per_octave': 1,
            'strides': [8, 16, 32, 64, 128],
        },
        'bbox_coder': {
            'type': 'DeltaXYWHBBoxCoder', 'target_means': [0.0] * 4, 'target_stds': [0.1, 0.1, 0.2, 0.2],
        },
        'loss_cls': {'type': 'FocalLoss', 'use_sigmoid': True, 'gamma': 2.0, 'alpha': 0.25},
        'loss_bbox': {'type': 'GIoULoss', 'loss_weight': 2.0},
        'loss_centerness': {'type': 'CrossEntropyLoss', 'use_sigmoid': True, 'loss_weight': 1.0},
        'train_cfg': {
            'assigner': {'type': 'atss_ext.ATSSAssigner', 'topk': 9}, 'allowed_border': -1, 'pos_weight': -1,
        },
    }  # fmt: skip
    head = MODELS.build(ConfigDict(config))
    head.init_weights()
    return head


def _losses_and_gradients(images: list[int]) -> dict[str, torch.Tensor]:
    """Losses summed over levels, and the gradients of their sum, for some images of the batch of four."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    head = _head()
    generator = torch.Generator().manual_seed(1)
    features = [
        torch.randn(4, 8, SIZE // s or 1, SIZE // s or 1, generator=generator) for s in (8, 16, 32, 64, 128)
    ]
    samples = []
    for index in images:
        sample = DetDataSample(
            metainfo={'img_shape': (SIZE, SIZE), 'pad_shape': (SIZE, SIZE), 'scale_factor': (1, 1)}
        )
        boxes = torch.tensor(BOXES[index]).reshape(-1, 4)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor(LABELS[index], dtype=torch.long))
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    losses = head.loss(tuple(level[images] for level in features), samples)
    sums = {name: torch.stack(values).sum() for name, values in losses.items()}
    torch.stack(list(sums.values())).sum().backward()
    # A parameter without a gradient would keep DistributedDataParallel of the other rank waiting.
    gradients = {name: value.grad for name, value in head.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return {name: value.detach() for name, value in {**sums, **gradients}.items()}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    found = _losses_and_gradients([0, 1] if rank == 0 else [2, 3])
    torch.save(found, f'{folder}/{rank}.pth')
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """What each of two processes finds; they are ended if they wait for each other."""
    folder: Path = tmp_path_factory.mktemp('ranks')
    context = spawn_warm(_process, args=(str(folder),), nprocs=2, join=False)
    deadline = time.monotonic() + 120
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, 'the two processes wait for each other'
    finally:
        for process in context.processes:
            process.kill()
    return [torch.load(folder / f'{rank}.pth') for rank in range(2)]


def test_the_mean_over_ranks_is_the_loss_of_one_process(two_processes):
    """Sums are divided by counts that were averaged over ranks: the mean of both is that of one process.

    And so are the gradients, which DistributedDataParallel averages.
    """
    whole = _losses_and_gradients([0, 1, 2, 3])
    first, second = two_processes
    assert whole.keys() == first.keys() == second.keys()
    for name, value in whole.items():
        torch.testing.assert_close((first[name] + second[name]) / 2, value, rtol=1e-5, atol=1e-7, msg=name)


def test_the_empty_rank_learns_background_only(two_processes):
    first, second = two_processes
    assert second['loss_bbox'] == 0
    assert second['loss_centerness'] == 0
    assert 0 < second['loss_cls'] < first['loss_cls']
    assert first['loss_bbox'] > 0
    assert second['atss_reg.weight'].abs().max() == 0
    assert second['atss_cls.weight'].abs().max() > 0
