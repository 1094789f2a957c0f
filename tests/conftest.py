import random

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

import atss_ext  # noqa: F401  (offers mmcv._ext to the tests also where no .pth file was installed)


@pytest.fixture(autouse=True)
def isolated_default_scope():
    """mmengine keeps the scope a test chose for the rest of the process; the next test starts without."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def isolated_random_state():
    """Every test starts from the same random state and leaves none behind."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
