"""Every command of docs/paper.md: its config is read, and it asks for its data or for trained weights.

None of that can be here, so each ends by saying what is missing.
"""

import shlex
from pathlib import Path

import pytest
from doc_pages import commands_of
from mmengine.config import Config
from tiny_coco import REPO

COMMANDS = [shlex.split(line) for line in commands_of('docs/paper.md')]
TRAINING = [command[2] for command in COMMANDS if command[1] == 'tools/train.py']
TESTS = [command[2:] for command in COMMANDS if command[1] == 'tools/test.py']


def test_all_commands_are_tried():
    assert len(COMMANDS) == len(TRAINING) + len(TESTS) == 5
    assert {command[0] for command in COMMANDS} == {'python'}


@pytest.mark.parametrize('config', TRAINING)
def test_training_commands_ask_for_their_data(config, in_process):
    code, said = in_process('train.py', REPO / config)
    assert code == 2
    assert 'data/coco/annotations/instances_train2017.json' in said.splitlines()[-1]


@pytest.mark.parametrize('arguments', TESTS, ids=[Path(arguments[0]).stem for arguments in TESTS])
def test_test_commands_take_what_training_makes(arguments, in_process):
    config, weights, *options = arguments
    trained = REPO / 'configs/paper' / Path(weights).parent.name.split('_')[0] / Path(weights).parent.name
    ours, theirs = Config.fromfile(REPO / config), Config.fromfile(f'{trained}.py')
    assert ours.model.to_dict() == theirs.model.to_dict()
    assert Path(weights).name == f'epoch_{theirs.train_cfg.max_epochs}.pth'
    assert options == (['--tta'] if 'tta_model' in ours else [])
    code, said = in_process('test.py', REPO / config, weights, *options)
    assert code == 2
    assert weights in said.splitlines()[-1]
