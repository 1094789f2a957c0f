"""One training in a process of its own, and what is kept of it."""

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from atss_ext.cli.errors import explain
from atss_ext.cli.runner import build_runner

METRICS = ('AP', 'AP50', 'AP75')
_KEYS = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75')


@dataclass(frozen=True)
class Run:
    """A row with a seed.

    Attributes:
        row: name of the row's config.
        seed: of the training.
        cfg: all of it but ``work_dir``.
        folder: of everything that is kept; named after the config's content, so that rows of the same
            content, of whatever table, are trained once.
    """

    row: str
    seed: int
    cfg: Config
    folder: Path

    @property
    def result(self) -> dict[str, Any] | None:
        """AP, AP50, AP75 (percent) and seconds of a finished run."""
        try:
            return json.loads((self.folder / 'result.json').read_text())
        except (OSError, ValueError):
            return None


def make_run(row: str, cfg: Config, seed: int, digest: str, root: Path) -> Run:
    """The run of a row's config with a seed on data of a digest."""
    cfg = Config(cfg.to_dict())
    cfg.randomness = {'seed': seed}
    # Where data lie does not make a run another one; what they hold does.
    text = json.dumps(_without_paths(cfg.to_dict()), sort_keys=True, default=str) + digest
    return Run(row, seed, cfg, root / hashlib.sha256(text.encode()).hexdigest()[:16])


def _without_paths(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _without_paths(v) for k, v in node.items() if k not in ('ann_file', 'data_prefix')}
    return [_without_paths(item) for item in node] if isinstance(node, list | tuple) else node


def perform(run: Run) -> dict[str, Any] | None:
    """Train and score in a process of its own; None where that failed, and why is the end of its log.txt."""
    shutil.rmtree(run.folder, ignore_errors=True)  # of a run that was killed
    run.folder.mkdir(parents=True)
    # Not forked: in a fork OpenMP waits for ever for threads that this process had, and a GPU is lost to it.
    context = multiprocessing.get_context('spawn')
    child = context.Process(target=_child, args=(run, os.getpid()))
    child.start()
    try:
        child.join()
    except BaseException:
        child.terminate()
        child.join()
        raise
    return run.result


def last_words(run: Run) -> str:
    """The last line of a failed run's log."""
    try:
        lines = (run.folder / 'log.txt').read_text(errors='replace').strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else 'it said nothing'


def _child(run: Run, parent: int) -> None:
    log = os.open(run.folder / 'log.txt', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    code = 1
    try:
        _train(run)
        code = 0
    except BaseException as error:
        os.write(2, f'{traceback.format_exc()}\n{explain(error) or ""}'.encode())
    os._exit(code)  # without what the parent registered for its own end


def _end_with(parent: int) -> None:
    """End when the parent was killed, so that whoever resumes finds nobody at work."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _train(run: Run) -> None:
    started = time.monotonic()
    cfg = run.cfg
    cfg.work_dir = str(run.folder)
    cfg.launcher = 'none'
    runner = build_runner(cfg)
    runner.train()
    found = runner.val_loop.run()
    result: dict[str, Any] = {'row': run.row, 'seed': run.seed, 'seconds': time.monotonic() - started}
    for name, key in zip(METRICS, _KEYS, strict=True):
        # Without any detection the metric is silent, or says -1.
        result[name] = max(0.0, 100 * float(found.get(f'coco/{key}', 0.0)))
    partial = run.folder / '.result.partial'
    partial.write_text(json.dumps(result, indent=1))
    os.replace(partial, run.folder / 'result.json')
