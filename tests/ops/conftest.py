"""Lets ``pytest -m cuda tests/ops`` run on a machine that has torch, torchvision and pytest alone."""

from importlib.util import find_spec

import pytest

from atss_ext.ops import native

NEEDS = {
    'test_box_iou.py': ('mmdet', 'mmengine'),
    'test_atss_assign.py': ('mmdet', 'mmengine', 'hypothesis'),
    'test_grid.py': ('mmdet', 'mmengine', 'hypothesis'),
}
collect_ignore = [name for name, modules in NEEDS.items() if not all(map(find_spec, modules))]


@pytest.fixture(params=['native', 'fallback'])
def route(request, monkeypatch) -> str:
    """Runs a test with the library, and without."""
    if request.param == 'fallback':
        monkeypatch.setattr(native, 'DEVICES', frozenset())
    return request.param
