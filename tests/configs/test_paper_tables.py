"""Every row of tables 1 to 7 is built, trained one step and tested once; its size: paper_models.py."""

import pytest
from paper_models import build, check_detections, check_layers, check_step, narrow
from paper_rows import ROWS

OURS = {name: row for name, row in ROWS.items() if not name.startswith(('table8', 'zoo'))}


@pytest.mark.parametrize('row', OURS.values(), ids=list(OURS))
def test_it_is_built_trained_and_tested(row):
    model = build(narrow(row))
    check_layers(row, model)
    check_step(row, model)
    check_detections(model)
