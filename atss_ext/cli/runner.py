"""From a config to mmengine's Runner, also where there is no GPU."""

import os
import re
import subprocess
from collections.abc import Mapping
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing

from atss_ext.cli.checkpoint_report import CheckpointReport
from atss_ext.cli.errors import note
from atss_ext.cli.images import name_unreadable_images
from atss_ext.compat.checkpoints import force_restricted_loading, register_loader
from atss_ext.datasets.checks import nearest
from atss_ext.errors import UserError


def require(cfg: Config, *keys: str) -> None:
    """Refuse a config that lacks a section the command needs.

    Raises:
        UserError: with the section and its nearest relative in the config.
    """
    for key in keys:
        if cfg.get(key) is None:
            raise UserError(
                f'config {cfg.filename} has no {key}{nearest(key, cfg.keys())}; add it, or inherit from a '
                'config that has it'
            )


def require_checkpoint(path: str) -> None:
    """Refuse a local checkpoint that is not there; URLs and the like are left to mmengine.

    Raises:
        UserError: with the path.
    """
    if not re.match(r'^[\w-]+:(//|s3:)', path) and not os.path.isfile(os.path.expanduser(path)):
        raise UserError(f'checkpoint {path} does not exist; correct the path')


def build_runner(
    cfg: Config, chosen: Mapping[str, object] | None = None, least_matched: float = 0.0
) -> Runner:
    """Build the runner of a config.

    Without a GPU, mixed precision becomes bfloat16 and processes talk through gloo; both are
    said. Checkpoints are read without running what they contain; of one that fits the model in
    part, the tensors are counted. Unreadable images are named.

    Args:
        cfg: the config, changed in place.
        chosen: the ``--cfg-options``: a backend stated there is kept.
        least_matched: share of the model's tensors that a checkpoint has to fit, or else is refused.

    Raises:
        UserError: the launcher's environment is incomplete.
    """
    if get_device() == 'cpu':
        _use_cpu_amp(cfg)
        if cfg.launcher != 'none':
            join_processes(cfg, chosen)
    force_restricted_loading()
    register_loader()
    name_unreadable_images()
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    # Behind EMAHook, which swaps the weights of a checkpoint.
    runner.register_hook(CheckpointReport(least_matched), priority='LOWEST')
    return runner


def join_processes(cfg: Config, chosen: Mapping[str, object] | None = None) -> None:
    """Join the processes of a launcher now, which otherwise happens while the runner is built.

    Args:
        cfg: the config, changed in place.
        chosen: as of :func:`build_runner`.

    Raises:
        UserError: the launcher's environment is incomplete.
    """
    if get_device() == 'cpu':
        _start_on_cpu(cfg, chosen or {})
    elif not torch.distributed.is_initialized():
        env_cfg = cfg.get('env_cfg') or {}
        # In this order, as mmengine's runner does: whoever joins first sets the start method of the loaders.
        set_multi_processing(**(env_cfg.get('mp_cfg') or {}), distributed=True)
        init_dist(cfg.launcher, **(env_cfg.get('dist_cfg') or {}))


def _use_cpu_amp(cfg: Config) -> None:
    wrapper = cfg.get('optim_wrapper')
    kind = wrapper.get('type') if isinstance(wrapper, Mapping) else None
    if getattr(kind, '__name__', kind) == 'AmpOptimWrapper':
        from atss_ext.cli import amp  # noqa: F401 - registers the wrapper

        note('no GPU was found: mixed precision computes in bfloat16 on the CPU, where it may well be slower')
        cfg.optim_wrapper.type = 'CpuAmpOptimWrapper'


def _start_on_cpu(cfg: Config, chosen: Mapping[str, object]) -> None:
    """Join the process group, which mmengine does only after choosing a GPU."""
    set_rank_variables(cfg.launcher)
    dist_cfg = dict((cfg.get('env_cfg') or {}).get('dist_cfg') or {})
    backend = dist_cfg.get('backend', 'nccl')
    if backend == 'nccl' and 'env_cfg.dist_cfg.backend' not in chosen:
        note('no GPU was found: the processes talk through gloo instead of nccl (env_cfg.dist_cfg.backend)')
        backend = 'gloo'
        cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {}).update(backend=backend)
    if not torch.distributed.is_initialized():
        timeout = timedelta(seconds=dist_cfg['timeout']) if 'timeout' in dist_cfg else None
        torch.distributed.init_process_group(backend, timeout=timeout)
    # mmengine's default names a GPU here, which torch refuses for a model on the CPU.
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = {
            'type': 'MMDistributedDataParallel',
            'broadcast_buffers': False,
            'find_unused_parameters': cfg.get('find_unused_parameters', False),
        }
    if cfg.model_wrapper_cfg.get('type', 'MMDistributedDataParallel') == 'MMDistributedDataParallel':
        cfg.model_wrapper_cfg['device_ids'] = None


def set_rank_variables(launcher: str) -> None:
    """Set what torch reads, from what the launcher sets.

    Raises:
        UserError: the process was not started by that launcher.
    """
    names = {
        'pytorch': {'RANK': 'RANK', 'WORLD_SIZE': 'WORLD_SIZE', 'LOCAL_RANK': 'LOCAL_RANK'},
        'slurm': {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'},
        'mpi': {
            'RANK': 'OMPI_COMM_WORLD_RANK',
            'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE',
            'LOCAL_RANK': 'OMPI_COMM_WORLD_LOCAL_RANK',
        },
    }[launcher]
    missing = [source for source in names.values() if source not in os.environ]
    if missing:
        starter = {'pytorch': 'tools/dist_*.sh', 'slurm': 'tools/slurm_*.sh', 'mpi': 'mpirun'}[launcher]
        raise UserError(
            f'--launcher {launcher} needs {missing[0]} in the environment; start the command by {starter}, '
            'or leave --launcher away'
        )
    os.environ.update({target: os.environ[source] for target, source in names.items()})
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_node() if launcher == 'slurm' else '127.0.0.1'


def _first_node() -> str:
    nodes = os.environ.get('SLURM_NODELIST', '')
    listed = subprocess.run(
        ['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()[0]
