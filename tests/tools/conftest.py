"""Fixtures of the tests of tools/: tiny data, and two ways to run a tool."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_coco import BOXES, CONFIG, REPO, Tiny, environment, load_tool, write_split
from warm import run_warm


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """A fresh copy for each test: tests damage it."""
    root = tmp_path / 'data'
    (root / 'images').mkdir(parents=True)
    for split in BOXES:
        write_split(root, split)
    config = root / 'tiny.py'
    config.write_text(CONFIG.replace('{root}', root.as_posix()))
    return Tiny(root, config)


@pytest.fixture
def run_tool():
    """Run a script of tools/ as a process of its own, from another folder; ``fresh``: in an interpreter."""

    def run(
        script: str, *args: object, cwd: Path, fresh: bool = False, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        command = [str(REPO / 'tools' / script), *map(str, args)]
        if not fresh:
            return run_warm(command, cwd, environment(**extra))
        return subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run


def forget_runs() -> None:
    """Let mmengine forget the runs of this process.

    It names a run by the second it starts in, and hands the second of two the logger of the first, whose
    stream pytest has closed by then.
    """
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.visualization import Visualizer

    for kind in (MMLogger, MessageHub, Visualizer, *Visualizer.__subclasses__()):
        kind._instance_dict.clear()


@pytest.fixture
def in_process(tmp_path, monkeypatch, capfd):
    """Run a tool in this process, as its last line does; return exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('LOCAL_RANK', raising=False)

    def run(script: str, *args: object) -> tuple[int, str]:
        from atss_ext.cli import run_tool

        forget_runs()
        tool = load_tool(script)
        capfd.readouterr()
        code = run_tool(lambda: tool.main([str(arg) for arg in args]))
        return code, capfd.readouterr().err

    return run
