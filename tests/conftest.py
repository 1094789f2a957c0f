import os
import random
import sys

import pytest
import torch

import atss_ext  # noqa: F401  (offers mmcv._ext to the tests also where no .pth file was installed)


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
