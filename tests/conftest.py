import os
import random
import sys
from pathlib import Path

import pytest
import torch

import atss_ext  # noqa: F401  (offers mmcv._ext to the tests also where no .pth file was installed)

# Files of twenty seconds and more, the longest first. Where processes share the tests, one that met such a
# file last would work on alone while the others have nothing left to do.
LONGEST = (
    'packaging/test_install.py',
    'tools/test_demo_vlsam.py',
    'docs/test_readme.py',
    'docs/test_vlsam_page.py',
    'docs/test_vlsam_world_page.py',
    'tools/test_dist_elastic.py',
    'tools/test_dist.py',
    'tools/test_benchmarks.py',
    'vlsam/test_detector.py',
    'tools/test_paper_table.py',
    'tools/test_train.py',
    'tools/test_bad_input.py',
    'deploy/test_sharing_page.py',
    'deploy/test_detector_export.py',
    'tools/test_assigners_benchmark.py',
    'docs/test_site.py',
    'datasets/test_documented_commands.py',
    'tools/test_evaluate_tool.py',
    'tools/test_demo.py',
    'tools/test_attention_benchmark.py',
    'assigners/test_atss.py',
    'tools/test_dist_vlsam.py',
    'tools/test_online_offline.py',
    'tools/test_vlsam_tool.py',
    'evaluation/test_coco_metric.py',
    'evaluation/test_coda_metric.py',
    'ops/test_grid.py',
    'models/test_lvis_memory.py',
)


def pytest_configure(config):
    """The order below is that of the tests also where pytest-xdist hands out files."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Long files first, all others as they come."""
    place = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(autouse=True)
def isolated_default_scope():
    """mmengine keeps the scope a test chose for the rest of the process; the next test starts without."""
    yield
    if 'mmengine.registry' in sys.modules:  # the op tests run without mmengine too
        sys.modules['mmengine.registry'].DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def isolated_environment():
    """Tools that run in this process set variables for the rest of it, such as how torch may load files.

    Which tests follow in the same process is chance where several processes share them.
    """
    before = dict(os.environ)
    yield
    own = 'PYTEST_CURRENT_TEST'
    for name in os.environ.keys() - before.keys() - {own}:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != own})


@pytest.fixture(autouse=True)
def isolated_random_state():
    """Every test starts from the same random state and leaves none behind."""
    python, torch_state = random.getstate(), torch.get_rng_state()
    numpy = sys.modules.get('numpy')  # torch does without
    numpy_state = numpy.random.get_state() if numpy else None
    random.seed(0)
    torch.manual_seed(0)
    if numpy:
        numpy.random.seed(0)
    yield
    random.setstate(python)
    torch.set_rng_state(torch_state)
    if numpy:
        numpy.random.set_state(numpy_state)


@pytest.fixture(autouse=True)
def no_log_of_an_earlier_run():
    """Runs of tools in this process leave a logger whose file is closed, and models log to the latest one."""
    yield
    logging = sys.modules.get('mmengine.logging')
    loggers = logging.MMLogger._instance_dict if logging else {}
    for name in [name for name, logger in loggers.items() if any(map(_has_file, logger.handlers))]:
        del loggers[name]


def _has_file(handler) -> bool:
    return hasattr(handler, 'baseFilename')
