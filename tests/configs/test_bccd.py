"""The BCCD config on the real photographs, where ATSS_DATA_ROOT says they are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_trains_on_real_photographs(tmp_path):
    """Bars somewhat under what was measured: a wrong assignment or evaluation stays far below."""
    root = os.environ.get('ATSS_DATA_ROOT')
    if root is None:
        pytest.skip('needs BCCD: set ATSS_DATA_ROOT to the folder that holds bccd/')
    # A root that is set and wrong is a mistake, not a reason to pass over the test.
    assert (Path(root) / 'bccd/annotations/instances_test.json').exists()
    config = 'configs/demo/atss_r18_bccd.py'
    into = ['--work-dir', str(tmp_path)]
    subprocess.run([sys.executable, 'tools/train.py', config, *into], cwd=ROOT, check=True)
    checkpoint = next(tmp_path.glob('best_coco_bbox_mAP_epoch_*.pth'))
    test = [sys.executable, 'tools/test.py', config, str(checkpoint), *into]
    result = subprocess.run(test, cwd=ROOT, check=True, capture_output=True, text=True)
    found = re.findall(r'coco/bbox_(mAP(?:_50|_75)?): ([\d.]+)', result.stdout + result.stderr)
    figures = {name: float(value) for name, value in found}
    assert figures['mAP'] > 0.45
    assert figures['mAP_50'] > 0.75
