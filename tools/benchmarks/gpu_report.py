"""What tools/gpu_check.sh asks Python for: can this machine do it, and one JSON of what happened.

    python tools/benchmarks/gpu_report.py probe
    python tools/benchmarks/gpu_report.py write FOLDER

`probe` prints the architecture to build for, or ends with a sentence. `write` reads FOLDER/steps.tsv (name,
exit status, seconds, limit, a line a step), the steps' logs and FOLDER/benchmarks.json, writes
FOLDER/gpu_check.json, prints a table and ends with 1 if a step failed.
"""

import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from datetime import date
from pathlib import Path
from typing import Any

TIMED_OUT = (124, 137)
# What the steps of gpu_check.sh write instead of an exit status.
SKIPPED = 'skipped'
TAIL = 4000


def probe() -> str:
    """The architecture of the GPU, as TORCH_CUDA_ARCH_LIST spells it."""
    for name in ('torch', 'torchvision'):
        if not importlib.util.find_spec(name):
            sys.exit(f'gpu_check: {name} is not installed for {sys.executable}; install it, or set PYTHON')
    import torch

    if not torch.cuda.is_available():
        sys.exit('gpu_check: torch sees no CUDA device here; run this on a machine with an NVIDIA GPU')
    if not (shutil.which('nvcc') or os.access(_nvcc_of_toolkit(), os.X_OK)):
        sys.exit('gpu_check: nvcc was not found; install the CUDA toolkit, or put its bin folder on PATH')
    return '{}.{}'.format(*torch.cuda.get_device_capability())


def _nvcc_of_toolkit() -> str:
    return os.path.join(os.environ.get('CUDA_HOME', '/usr/local/cuda'), 'bin', 'nvcc')


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """The steps as gpu_check.sh noted them."""
    steps = []
    for line in (folder / 'steps.tsv').read_text(encoding='utf-8').splitlines():
        name, code, seconds, limit = line.split('\t')
        log = folder / f'{name}.log'
        text = log.read_text(encoding='utf-8', errors='replace') if log.is_file() else ''
        status = _status(code)
        step = {'step': name, 'status': status, 'seconds': int(seconds), 'limit_s': int(limit)}
        step['summary'] = _summary(text)
        if status in ('failed', 'timed out'):
            step['log_tail'] = text[-TAIL:]
        steps.append(step)
    return steps


def _status(code: str) -> str:
    if code == SKIPPED:
        return SKIPPED
    return 'timed out' if int(code) in TIMED_OUT else 'failed' if int(code) else 'ok'


def _summary(log: str) -> str:
    """The lines of a log that say how it ended: pytest's and the sanitizer's last; else the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [
        line for line in lines if re.search(r'\d+ (passed|failed|error|skipped|deselected)|SUMMARY', line)
    ]
    return ' / '.join(text.strip('= ') for text in (telling[-2:] or lines[-1:]))[:200]


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file, or None where it is missing or cut short."""
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None


def machine() -> dict[str, Any]:
    """What was checked on what."""
    import torch

    return {
        'gpu': torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        'cuda': torch.version.cuda,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'cores': os.cpu_count(),
    }


def write(folder: Path) -> int:
    """Assemble gpu_check.json and print the table; returns the exit code."""
    steps = read_steps(folder)
    ok = all(step['status'] in ('ok', SKIPPED) for step in steps)
    benchmarks = read_json(folder / 'benchmarks.json')
    result = {'ok': ok, 'date': date.today().isoformat(), 'machine': machine(), 'steps': steps}
    path = folder / 'gpu_check.json'
    path.write_text(json.dumps({**result, 'benchmarks': benchmarks}, indent=1) + '\n', encoding='utf-8')
    print(f'\n{"step":<12}{"status":<11}{"seconds":>8}{"limit":>7}  summary')
    for step in steps:
        print('{step:<12}{status:<11}{seconds:>8}{limit_s:>7}  {summary}'.format(**step))
    for row in (benchmarks or {}).get('rows', []):
        if row['reached'] is not None:
            verdict = 'reached' if row['reached'] else 'MISSED'
            print(f'{verdict:<8} {row["ratio"]:.2f}x of {row["at_least"]}x: {row["work"]}, {row["against"]}')
    print(f'gpu_check: {"all steps passed" if ok else "a step failed"}; {path} holds everything')
    return 0 if ok else 1


if __name__ == '__main__':
    if sys.argv[1:] == ['probe']:
        print(probe())
    elif len(sys.argv) == 3 and sys.argv[1] == 'write':
        sys.exit(write(Path(sys.argv[2])))
    else:
        sys.exit('gpu_report: use it as `gpu_report.py probe` or `gpu_report.py write FOLDER`')
