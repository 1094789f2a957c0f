"""An assigner that its head never calls is said before a run begins."""

import pytest
from mmengine.config import Config

import atss_ext  # noqa: F401 - fills the registries
from atss_ext.cli import preflight

ASSIGNER = {'type': 'atss_ext.ATSSAssigner', 'topk': 9}


@pytest.mark.parametrize('head', ['FCOSHead', 'mmdet.NASFCOSHead'])
def test_fcos_never_calls_its_assigner(head, capsys):
    model = {'bbox_head': {'type': head}, 'train_cfg': {'assigner': ASSIGNER}}
    preflight.check_data(Config({'model': model}), 'train_dataloader')
    assert capsys.readouterr().err == (
        f'note: {head.removeprefix("mmdet.")} assigns by a rule of its own and never calls '
        'model.train_cfg.assigner (atss_ext.ATSSAssigner): remove that key, or take atss_ext.ATSSHead with '
        "regression='point'\n"
    )


@pytest.mark.parametrize('head', ['RetinaHead', 'VFNetHead', 'atss_ext.ATSSHead', 'NoSuchHead'])
def test_heads_that_do_and_unknown_ones_are_passed_over(head, capsys):
    model = {'bbox_head': {'type': head}, 'train_cfg': {'assigner': ASSIGNER}}
    preflight.check_data(Config({'model': model}), 'train_dataloader')
    model = {'bbox_head': {'type': 'FCOSHead'}, 'train_cfg': None}
    preflight.check_data(Config({'model': model}), 'train_dataloader')
    assert capsys.readouterr().err == ''
