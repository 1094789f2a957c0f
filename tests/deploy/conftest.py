"""A tiny detector, its checkpoint and its published file, made once for the tests of a module."""

from pathlib import Path

import pytest
from tiny_detectors import load_tool, save_checkpoint, tiny_config, tiny_model


@pytest.fixture(scope='session')
def official():
    """Config and model that rank as the official code does."""
    cfg = tiny_config(**{'model.test_cfg.inference': 'official'})
    return cfg, tiny_model(cfg)


@pytest.fixture(scope='session')
def checkpoint(official, tmp_path_factory) -> Path:
    """As training writes it."""
    return save_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth', *official)


@pytest.fixture
def tool(capfd):
    """Run a tool in this process, as its last line does; return exit code, stdout and stderr."""

    def run(script: str, *args: object) -> tuple[int, str, str]:
        from mmengine.logging import MessageHub, MMLogger
        from mmengine.visualization import Visualizer

        from atss_ext.cli import run_tool

        # mmengine hands a run of the same second the logger of the one before.
        for kind in (MMLogger, MessageHub, Visualizer, *Visualizer.__subclasses__()):
            kind._instance_dict.clear()
        module = load_tool(script)
        capfd.readouterr()
        code = run_tool(lambda: module.main([str(arg) for arg in args]))
        return code, *capfd.readouterr()

    return run
