"""Prints the peak memory of a training step at LVIS's size; a process of its own for test_lvis_memory.

For ``atss_ext`` (our head and assigner) and ``mmdet`` (its own): 1,203 classes, an image of 800 x 1333, which
is 22,400 priors, with 30 and with 330 objects. 'assign' is the assignment alone, 'step' (ours) the losses of
the head's outputs and the way back: what comes before knows nothing of objects. In MB (10^6 bytes), the
high-water mark of the resident set less what was resident.
"""

import ctypes
import json
import re
from pathlib import Path

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.structures import InstanceData
from test_atss_head import STRIDES, head_config

import atss_ext  # noqa: F401
from atss_ext.assigners import PackedGts
from atss_ext.registry import MODELS

HEIGHT, WIDTH = 800, 1344  # padded to a multiple of 32
SHAPES = tuple((-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES)
META = {'img_shape': (800, 1333), 'pad_shape': (HEIGHT, WIDTH)}
CLASSES = 1203


def status(key):
    found = re.search(rf'^{key}:\s+(\d+) kB', Path('/proc/self/status').read_text(), flags=re.MULTILINE)
    return int(found[1]) * 1024


def peak(call):
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
    before = status('VmRSS')
    call()
    return (status('VmHWM') - before) / 1e6


def objects(count):
    torch.manual_seed(count)
    corners = torch.rand(count, 2) * torch.tensor([1200.0, 700.0])
    sizes = 8 + torch.rand(count, 2) * 120
    return InstanceData(
        bboxes=torch.cat([corners, corners + sizes], 1), labels=torch.randint(0, CLASSES, (count,))
    )


def build(side):
    assigner = {'type': f'{side}.ATSSAssigner', 'topk': 9}
    config = head_config(num_classes=CLASSES)
    config['train_cfg'] = {**config['train_cfg'], 'assigner': assigner}
    registry = MODELS if side == 'atss_ext' else MMDET_MODELS
    return registry.build({**config, 'type': f'{side}.ATSSHead'})


def assignment(head, side, gts):
    """The assignment alone: of ours on the packed batch, of mmdet's on the image."""
    if side == 'atss_ext':
        priors = head.pyramid_priors(SHAPES, torch.device('cpu'))
        packed = PackedGts.from_instances([gts], None)
        return lambda: head.get_targets(priors, packed)
    levels = head.prior_generator.grid_priors(SHAPES, device='cpu')
    priors = InstanceData(priors=torch.cat(levels))
    return lambda: head.assigner.assign(priors, [len(level) for level in levels], gts)


def step(head, gts):
    """The losses and the way back; the outputs themselves are there before."""
    outputs = [
        [torch.zeros(1, channels, *shape, requires_grad=True) for shape in SHAPES]
        for channels in (CLASSES, 4, 1)
    ]

    def run():
        losses = head.loss_by_feat(*outputs, [gts], [META])
        sum(sum(levels) for levels in losses.values()).backward()

    return run


def main():
    torch.set_num_threads(1)
    figures = {}
    for side in ('atss_ext', 'mmdet'):
        head = build(side)
        assignment(head, side, objects(4))()  # loads libraries and starts threads
        for count in (30, 330):
            figures[f'{side} assign {count}'] = peak(assignment(head, side, objects(count)))
            if side == 'atss_ext':
                figures[f'{side} step {count}'] = peak(step(head, objects(count)))
    print(json.dumps(figures))


if __name__ == '__main__':
    main()
