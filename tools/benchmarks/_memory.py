"""Peak extra memory of one assignment, measured in a process of its own.

torch's own counters see only tensors; our kernels also hold vectors of C++, so on the CPU the operating
system is asked. The child builds its inputs, makes one tiny call (which loads libraries and starts
threads), hands all freed memory back, resets the high-water mark of its resident set (writing 5 to
/proc/self/clear_refs) and makes the one call that counts: VmHWM after it minus VmRSS before it, results
included. malloc is told to hand freed memory back and to take large blocks from the system, so that none
of the call's memory hides in what was there already. The kernel counts resident pages in batches a core:
figures are good to some 0.1 MB. On a GPU torch's allocator counts, and every kernel of ours allocates
through it.

As a command: prints the figure for the settings given as one JSON object.
"""

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from _settings import Settings

# Smaller blocks come from the heap, whose top is trimmed at once.
MALLOC = {'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '0', 'MALLOC_TOP_PAD_': '0'}
TIMEOUT_S = 300


def peak_mb(settings: Settings, side: str, gts: int) -> float:
    """Peak extra memory of one assignment of ``gts`` gts, 10^6 bytes.

    Args:
        settings: of the run.
        side: a route of ours, or 'mmdet'.
        gts: M.
    """
    request = json.dumps({'settings': asdict(settings), 'side': side, 'gts': gts})
    command = [sys.executable, '-W', 'ignore', str(Path(__file__).resolve()), request]
    done = subprocess.run(
        command, env={**os.environ, **MALLOC}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f'the process that measures the memory of {side} failed:\n{done.stderr[-2000:]}')
    return json.loads(done.stdout.splitlines()[-1])


def _measure(settings: Settings, side: str, gts: int) -> float:
    from _calls import our_call, their_call
    from _scenes import pyramid_priors, random_boxes

    import atss_ext  # noqa: F401 - lets mmdet run without a compiled mmcv

    def call(image: tuple[int, int], count: int) -> Callable[[], object]:
        priors = pyramid_priors(image, settings.device)
        boxes = [random_boxes(count, image, 0, settings.device)]
        return their_call(priors, boxes) if side == 'mmdet' else our_call(priors, boxes, side)

    settings.apply()
    measured = call(settings.image, gts)
    call((64, 64), 8)()
    return (_host_peak if settings.on_cpu else _cuda_peak)(measured)


def _host_peak(call: Callable[[], object]) -> float:
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')
    before = _status('VmRSS')
    result = call()
    peak = _status('VmHWM')
    del result
    return (peak - before) / 1e6


def _status(key: str) -> int:
    """Bytes, from this process's status."""
    found = re.search(rf'^{key}:\s+(\d+) kB', Path('/proc/self/status').read_text(), flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(f'/proc/self/status has no {key}: memory can be measured on Linux only')
    return int(found.group(1)) * 1024


def _cuda_peak(call: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    del result
    return (peak - before) / 1e6


if __name__ == '__main__':
    request = json.loads(sys.argv[1])
    print(json.dumps(_measure(Settings(**request['settings']), request['side'], request['gts'])))
