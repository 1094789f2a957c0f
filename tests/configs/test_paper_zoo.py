"""Every model of table 8 and the zoo is built, trained a step and tested; its size: paper_models.py."""

import pytest
from paper_models import build, check_detections, check_layers, check_step, check_views, narrow
from paper_rows import ROWS

OURS = {name: row for name, row in ROWS.items() if name.startswith(('table8', 'zoo'))}


@pytest.mark.parametrize('row', OURS.values(), ids=list(OURS))
def test_it_is_built_trained_and_tested(row):
    model = build(narrow(row))
    check_layers(row, model)
    check_step(row, model)
    check_detections(model)


VIEWS = {name: row for name, row in OURS.items() if row.tta == 'yes'}


@pytest.mark.parametrize('row', VIEWS.values(), ids=list(VIEWS))
def test_it_is_tested_in_all_views(row, tmp_path):
    check_views(narrow(row), tmp_path)
