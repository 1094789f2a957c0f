"""All that run.py measures. Imported once the environment of the run is set: OpenMP reads it only then."""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

# Lets mmdet run without a compiled mmcv.
import atss_ext  # noqa: F401

# isort: split
import _curves
import assignment
import box_iou
import growth
import head
from _report import Report
from _settings import Settings

from atss_ext.ops import native

SUBJECTS: dict[str, Callable[[Settings, Report], None]] = {
    'assignment': assignment.rows,
    'head': head.rows,
    'box_iou': box_iou.rows,
}
# Load above which times vary.
BUSY = 0.5
OTHER_LIMIT_S = 300


def refusal(device: str) -> str | None:
    """Why nothing can be measured on a device here, in a sentence; None if it can."""
    if device not in native.DEVICES:
        return f'the native library has no kernels for {device} here; build it for that device'
    return None


def run(settings: Settings, compare: bool) -> dict[str, Any]:
    """Measure everything; ``compare`` times the pairs under the other wait policy too."""
    settings.apply()
    result: dict[str, Any] = {
        'date': date.today().isoformat(),
        'device': settings.device,
        'machine': machine(settings.device),
        'torch': torch.__version__,
        'threads': settings.threads,
        'omp_wait_policy': os.environ.get('OMP_WAIT_POLICY'),
        'quick': settings.quick,
    }
    if result['machine']['load'] > BUSY and not settings.times_only:
        print(
            f'note: the load is {result["machine"]["load"]}; times are worth little on a busy machine',
            file=sys.stderr,
        )
    report = Report()
    points = measure(settings, report)
    other = None
    if compare:
        try:
            other = passive(settings)
        except Exception:
            _failed(report, 'passive')
    return result | {
        'rows': [row.as_json() for row in report.rows],
        'left_out': report.left_out,
        'failed': report.failed,
        'growth': points,
        'other_policy': other,
    }


def passive(settings: Settings) -> dict[str, Any]:
    """What has an opponent, timed in a process of its own whose idle threads sleep."""
    print('\nthe same with OMP_WAIT_POLICY=passive, in a process of its own', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'passive.json'
        command = [sys.executable, str(Path(__file__).with_name('run.py')), '--json', str(path)]
        command += ['--wait-policy', 'passive', '--times-only', '--threads', str(settings.threads)]
        if settings.quick:
            command.append('--quick')
        subprocess.run(command, timeout=OTHER_LIMIT_S, check=True)
        result = json.loads(path.read_text(encoding='utf-8'))
    return {key: result[key] for key in ('omp_wait_policy', 'rows')}


def machine(device: str) -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        'cpu': _cpu_model(),
        'cores': os.cpu_count(),
        'load': round(os.getloadavg()[0], 2),
        'system': f'{platform.system()} {platform.release()}',
        'gpu': torch.cuda.get_device_name() if device == 'cuda' else None,
    }


def _cpu_model() -> str:
    try:
        info = Path('/proc/cpuinfo').read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r'^model name\s*: (.+)$', info, flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def measure(settings: Settings, report: Report) -> dict[str, list[dict]] | None:
    """Run every subject; one that fails is said and does not end the others. Returns the growth."""
    for name, rows in SUBJECTS.items():
        try:
            rows(settings, report)
        except Exception:
            _failed(report, name)
    if settings.times_only:
        return None
    try:
        points = growth.measure(settings)
    except Exception:
        _failed(report, 'growth')
        return None
    _curves.show(points)
    return points


def _failed(report: Report, name: str) -> None:
    traceback.print_exc()
    report.failed.append(name)
    print(f'failed: {name}, with the traceback above', file=sys.stderr, flush=True)
