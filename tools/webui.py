"""A web page to look at a detector, at VL-SAM and at the assignment of priors.

    python tools/webui.py                                      # what the package brings, and make demo's
    python tools/webui.py --config CONFIG --checkpoint FILE    # your detector
    python tools/webui.py --vlsam configs/vlsam/vlsam_qwen2.5-vl-7b_sam2.1-l.py

It listens on 127.0.0.1 and fetches nothing. Configs and checkpoints are chosen from what the command line
names; what is sent to the page is read as an image or as JSON, and deleted when the server ends.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

# First: it lets mmdet run without a compiled mmcv, and quiets what its imports warn of.
import atss_ext.cli  # noqa: F401

# isort: split
from mmengine.runner import find_latest_checkpoint

from atss_ext.cli.errors import run_tool
from atss_ext.compat.checkpoints import force_restricted_loading, register_loader
from atss_ext.errors import UserError
from atss_ext.vlsam.devices import check_device

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
DEMO = CONFIGS / 'demo' / 'atss_r18_shapes.py'
WORLD = CONFIGS / 'vlsam' / 'vlsam_world.py'
COMPARED = [CONFIGS / 'paper' / 'table3' / f'table3_retinanet{kind}.py' for kind in ('', '_atss')]
DEMO_TRAINING = Path('work_dirs/demo/training')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    offer = parser.add_argument_group('what the page offers')
    offer.add_argument(
        '--config',
        nargs='+',
        default=[],
        help="configs of detectors; the demo's if left away",
    )
    offer.add_argument(
        '--checkpoint', nargs='+', default=[], help="their weights; those of 'make demo' if left away"
    )
    offer.add_argument(
        '--vlsam',
        nargs='+',
        default=[],
        help='configs of VL-SAM; the small world if left away',
    )
    offer.add_argument(
        '--assign', nargs='+', default=[], help='configs whose assignment is shown, beside --config'
    )
    parser.add_argument('--device', default='auto', help="cuda, cpu, ...; 'auto' takes a GPU if there is one")
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on')
    parser.add_argument('--port', type=int, default=7860)
    parser.add_argument('--max-megabytes', type=float, default=10, help='of one upload')
    parser.add_argument('--max-megapixels', type=float, default=25, help='of one image')
    args = parser.parse_args(argv)
    if not 1 <= args.port <= 65535:
        raise UserError(f'--port {args.port} must be from 1 to 65535')
    if args.config and not args.checkpoint:
        raise UserError('--config needs --checkpoint: name the weights of the detector too')
    return args


def paths(args: argparse.Namespace) -> dict[str, list[str]]:
    """The files that the page offers, by the arguments of ``Offer.of_files``."""
    detectors, checkpoints = args.config, args.checkpoint
    if not checkpoints and DEMO_TRAINING.is_dir():
        latest = find_latest_checkpoint(str(DEMO_TRAINING))
        checkpoints = [latest] if latest and Path(latest).is_file() else []
    return {
        'detectors': detectors or [str(DEMO)],
        'checkpoints': checkpoints,
        'discoverers': args.vlsam or [str(WORLD)],
        'assigners': [*args.assign, *args.config] or [str(path) for path in (*COMPARED, DEMO)],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until Ctrl-C."""
    args = parse_args(argv)
    if importlib.util.find_spec('gradio') is None:
        raise UserError("the page needs gradio; install it: pip install 'atss_ext[webui]'")
    check_device(args.device)
    force_restricted_loading()
    register_loader()
    from atss_ext.webui import Limits, Offer
    from atss_ext.webui.desk import Desk
    from atss_ext.webui.serving import Server, check_host, warning_of

    check_host(args.host)
    limits = Limits(args.max_megabytes, args.max_megapixels)
    desk = Desk(Offer.of_files(**paths(args)), limits, args.device)
    server = Server(desk, args.host, args.port)
    warning = warning_of(args.host)
    if warning:
        print(warning, file=sys.stderr, flush=True)
    print(f'the page is at {server.url} (Ctrl-C ends it)', flush=True)
    server.wait()


if __name__ == '__main__':
    sys.exit(run_tool(main, resume='the same command starts it again'))
