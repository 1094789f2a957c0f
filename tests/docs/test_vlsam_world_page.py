"""Every command of docs/vlsam_world.md runs."""

import json

from documented import IN_THIS_ENVIRONMENT, Commands, fill

from atss_ext.vlsam.world.scenes import names_in_order, scene_of

TABLE = 'docs/vlsam_world'
FEW_STEPS = ['--steps', '2', '--batch', '2', '--scenes', '8', '--check-scenes', '2']
COMMANDS: dict[str, list[str]] = {
    'make demo-vlsam': [*IN_THIS_ENVIRONMENT, 'ARGS=--scenes 2 --work-dir {tmp}/demo-vlsam'],
    'python tools/vlsam.py picture.png --config configs/vlsam/vlsam_world.py --maps': [],
    'python tools/vlsam_world/train_vlm.py': FEW_STEPS,
    'python tools/vlsam_world/train_sam.py': FEW_STEPS,
    'python tools/vlsam_world/ship.py': ['--out', 'shipped'],  # not into the package
    'python tools/vlsam_world/ship.py --card-only': ['--out', 'shipped'],
    'python tools/vlsam_world/prompt_study.py': ['--scenes', '2'],
    'python tools/vlsam_world/row_rules.py --scenes 300': ['--scenes', '2'],
    f'python tools/vlsam_world/ablation.py --json {TABLE}.json --page {TABLE}.md': ['--scenes', '1'],
}


def test_commands_run_and_do_what_they_say(tmp_path):
    run = Commands(fill(tmp_path))
    for line, appended in COMMANDS.items():
        run(line, appended)
    world = json.loads((tmp_path / 'work_dirs/vlsam/picture/annotations.json').read_text())
    assert {one['name'] for one in world['categories']} == set(names_in_order(scene_of('check', 0)))
    assert json.loads((tmp_path / 'demo-vlsam/summary.json').read_text())['scenes'] == 2
    assert json.loads((tmp_path / 'docs/vlsam_world.json').read_text())['scenes'] == 1
    assert (tmp_path / 'shipped/README.md').is_file()
