"""Test a detector: mmdet's command with mmdet's options, and errors in one sentence."""

import argparse
import sys
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from mmdet.registry import MODELS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from atss_ext.cli import UserError, base_parser, build_runner, load_config, note, run_tool
from atss_ext.cli.preflight import check_data
from atss_ext.cli.results import DumpCocoResults, DumpDetections
from atss_ext.cli.runner import require, require_checkpoint
from atss_ext.datasets.leaves import iter_leaves
from atss_ext.vlsam.image_list import ImageList

PICKLES = ('.pkl', '.pickle')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = base_parser('Test a detector')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help="checkpoint file; left away, or 'none', for a model that loads its weights itself (VL-SAM)",
    )
    parser.add_argument(
        '--out',
        help="write the detections: .json in COCO's result format, .pkl as mmdet's tools read them",
    )
    parser.add_argument('--show', action='store_true', help='show detections in a window')
    parser.add_argument(
        '--show-dir', help='folder for pictures of the detections, below work_dir/<time of the run>'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows a picture')
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation: the config's, or flipping"
    )
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.json', *PICKLES)):
        raise UserError(f'--out {args.out}: the name has to end in .json (COCO results) or .pkl (for mmdet)')
    return args


def use_checkpoint(cfg: Config, path: str | None) -> None:
    """Let the runner load the checkpoint, where the model needs one.

    Raises:
        UserError: it is missing.
    """
    kind = cfg.model.get('type')
    own = getattr(model_class(cfg), 'has_own_weights', False)
    path = None if path == 'none' else path
    cfg.resume = False
    cfg.load_from = None if own else path
    if own and path:
        note(f'checkpoint {path} is not read: {kind} loads its weights itself')
    elif not own and path is None:
        raise UserError(
            f'{kind} needs a checkpoint; name it behind the config: tools/test.py CONFIG CHECKPOINT'
        )
    if cfg.load_from:
        require_checkpoint(cfg.load_from)


def model_class(cfg: Config) -> Any:
    """Return the class of the config's model, or None."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    kind = cfg.model.get('type')
    return MODELS.get(kind) if isinstance(kind, str) else kind


def show_detections(cfg: Config, args: argparse.Namespace) -> None:
    """Turn on the config's visualization hook.

    Raises:
        UserError: it has none.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError(
            f'--show and --show-dir: config {args.config} has no default_hooks.visualization; add '
            "visualization=dict(type='DetVisualizationHook')"
        )
    hook.draw = True
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir:
        hook.test_out_dir = args.show_dir


def use_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation; by default each image is seen flipped too.

    Raises:
        UserError: the model cannot be wrapped.
    """
    if not getattr(model_class(cfg), 'takes_augmented_views', True):
        raise UserError(
            f'--tta: {cfg.model.type} takes images as they are and merges views of its own (corners=True); '
            'leave --tta away'
        )
    # The datasets inside wrappers are those whose pipelines load images.
    datasets = list(iter_leaves(cfg.test_dataloader.dataset))
    if 'tta_model' not in cfg:
        note('--tta: the config has no tta_model; flipped views are merged by NMS at IoU 0.5')
        nms: dict[str, Any] = {'type': 'nms', 'iou_threshold': 0.5}
        cfg.tta_model = {'type': 'DetTTAModel', 'tta_cfg': {'nms': nms, 'max_per_img': 100}}
    if 'tta_pipeline' not in cfg:
        *steps, pack = deepcopy(list(datasets[0].pipeline))
        keys = pack.get('meta_keys', ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
        flips = [{'type': 'RandomFlip', 'prob': 1.0}, {'type': 'RandomFlip', 'prob': 0.0}]
        pack.meta_keys = tuple(dict.fromkeys((*keys, 'flip', 'flip_direction')))
        cfg.tta_pipeline = [*steps, {'type': 'TestTimeAug', 'transforms': [flips, [pack]]}]
    cfg.model = {**cfg.tta_model, 'module': cfg.model}
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline


def add_output(runner: Runner, path: str) -> None:
    """Write the detections while testing.

    Raises:
        UserError: JSON for a dataset without COCO category ids.
    """
    if path.endswith(PICKLES):
        runner.test_evaluator.metrics.append(DumpDetections(out_file_path=path))
        return
    evaluator = runner.test_evaluator
    dataset = runner.test_dataloader.dataset
    # Open-ended results carry names instead of categories.
    category_ids = [1] if isinstance(dataset, ImageList) else getattr(dataset, 'cat_ids', None)
    if category_ids is None:
        kind = type(dataset).__name__
        raise UserError(f'--out {path}: {kind} has no COCO category ids; write a .pkl file instead')
    evaluator.metrics.append(DumpCocoResults(path, category_ids))


def main(argv: Sequence[str] | None = None) -> None:
    """Test."""
    args = parse_args(argv)
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(args)
    require(cfg, 'model', 'test_dataloader', 'test_evaluator', 'test_cfg')
    use_checkpoint(cfg, args.checkpoint)
    if args.show or args.show_dir:
        show_detections(cfg, args)
    check_data(cfg, 'test_dataloader')
    if args.tta:
        use_tta(cfg)
    # Training may begin with parts of another model; what is tested has learnt all of its own.
    runner = build_runner(cfg, args.cfg_options, least_matched=0.9)
    if args.out:
        add_output(runner, args.out)
    runner.test()


if __name__ == '__main__':
    sys.exit(run_tool(main))
