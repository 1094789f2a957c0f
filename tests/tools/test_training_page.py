"""Every command of docs/training.md: its config is read, and it asks for its data or for trained weights.

None of that can be here, so each ends by saying what is missing.
"""

import shlex
import subprocess
from pathlib import Path

import pytest
from doc_pages import commands_of
from mmengine.config import Config
from tiny_coco import REPO

LINES = commands_of('docs/training.md')
COMMANDS = [line for line in LINES if line.startswith('python ')]
# What puts LVIS beside COCO, run with a data/coco that is there.
LINKS = [
    'mkdir -p data/lvis_v1',
    'ln -s ../coco/annotations ../coco/train2017 ../coco/val2017 data/lvis_v1/',
]
DATA = {
    'configs/atss/atss_r50_fpn_1x_coco.py': 'data/coco/annotations/instances_train2017.json',
    'configs/lvis/atss_r50_fpn_sample1e-3_1x_lvis-v1.py': 'data/lvis_v1/annotations/lvis_v1_train.json',
    'configs/coda/atss_r50_fpn_1x_soda10m.py': 'data/soda10m/annotations/instance_train.json',
}


@pytest.mark.parametrize('line', [line for line in COMMANDS if 'tools/train.py' in line])
def test_training_commands_ask_for_their_data(line, in_process):
    _, script, config = shlex.split(line)
    code, said = in_process(script.removeprefix('tools/'), REPO / config)
    assert code == 2
    assert DATA[config] in said.splitlines()[-1]


@pytest.mark.parametrize('line', [line for line in COMMANDS if 'tools/test.py' in line])
def test_test_commands_take_what_a_training_command_makes(line, in_process):
    _, script, config, weights = shlex.split(line)
    trained = next(name for name in DATA if Path(name).stem == Path(weights).parent.name)
    assert f'python tools/train.py {trained}' in COMMANDS
    epochs = Config.fromfile(REPO / trained).train_cfg.max_epochs
    assert weights == f'work_dirs/{Path(trained).stem}/epoch_{epochs}.pth'
    code, said = in_process(script.removeprefix('tools/'), REPO / config, weights)
    assert code == 2
    assert weights in said.splitlines()[-1]


def test_all_commands_are_tried():
    assert [line for line in LINES if line not in COMMANDS] == LINKS
    assert len(COMMANDS) == 10
    tools = {shlex.split(line)[1] for line in COMMANDS}
    assert tools == {'tools/train.py', 'tools/test.py'}


def test_the_links_lead_to_coco(tmp_path):
    for name in ('annotations', 'train2017', 'val2017'):
        (tmp_path / 'data/coco' / name).mkdir(parents=True)
        (tmp_path / 'data/coco' / name / 'file').touch()
    subprocess.run(['bash', '-ec', '\n'.join(LINKS)], cwd=tmp_path, check=True)
    found = sorted(path.name for path in (tmp_path / 'data/lvis_v1').iterdir() if (path / 'file').is_file())
    assert found == ['annotations', 'train2017', 'val2017']
