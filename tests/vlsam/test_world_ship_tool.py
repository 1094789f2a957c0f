"""Putting small models into the package: what is taken, what is refused, and whose figures the card tells."""

import dataclasses
import hashlib
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_sams import tiny_sam
from tiny_vlms import tiny_vlm

from atss_ext.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'vlsam_world'))

import model_card
import ship
import train_sam
import train_vlm

VLM_FILES = (
    'chat_template.jinja',
    'config.json',
    'generation_config.json',
    'model.safetensors',
    'processor_config.json',
    'tokenizer.json',
    'tokenizer_config.json',
    'training.json',
)
SAM_FILES = ('config.json', 'model.safetensors', 'processor_config.json', 'training.json')
RECIPES = {'vlm': train_vlm.Recipe(steps=3, rate=0.004), 'sam': train_sam.Recipe(steps=7, parts=0.25)}
SCORES = {
    'vlm': {'losses': {'words': 0.12345}, 'names': {'precision': 0.9514, 'recall': 0.9, 'exact': 0.8956}},
    'sam': {'segmentation': {'whole': {'gt box': {'mask_iou': 0.9}, 'pair': {'mask_iou': 0.75}}}},
}
TABLE = {
    'command': 'python tools/vlsam_world/ablation.py --scenes 200',
    'split': 'held-out',
    'seed': 17,
    'scenes': 200,
    'names': {'precision': 0.951, 'recall': 0.942, 'exact': 0.885},
    'rows': [
        {
            'name': 'naive attention',
            'settings': {},
            **{'mAR': 0.1234, 'AR50': 0.5, 'AR75': 0.25, 'mask_mAR': 0.2, 'named_mAR': 0.1},
            'detections': 4.56,
        }
    ],
    'oracle_ratio': 0.763,
    'paper_ratio': 0.5,
}


def write_training(folder: Path, name: str, step: int | None = None) -> None:
    recipe = dataclasses.asdict(RECIPES[name])
    about = {**SCORES[name], 'minutes': 21.26, 'recipe': recipe}
    (folder / 'training.json').write_text(json.dumps(about))
    torch.save({'recipe': recipe, 'step': step or recipe['steps']}, folder / 'checkpoint.pt')


@pytest.fixture
def trained(tmp_path) -> dict[str, Path]:
    """Folders as the two trainings leave them."""
    folders = {name: tmp_path / 'trained' / name for name in ('vlm', 'sam')}
    for name, pieces in (('vlm', tiny_vlm('llava')), ('sam', tiny_sam('sam'))):
        for piece in pieces:
            piece.save_pretrained(folders[name])
        write_training(folders[name], name)
        (folders[name] / 'train.log').write_text('step 1')
        os.chmod(folders[name] / 'model.safetensors', 0o600)
    return folders


@pytest.fixture
def out(tmp_path) -> Path:
    """What is shipped before."""
    (tmp_path / 'world/weights/vlm').mkdir(parents=True)
    (tmp_path / 'world/weights/vlm/old.json').write_text('{}')
    return tmp_path / 'world/weights'


def run(trained: dict[str, Path], out: Path, *arguments: str) -> None:
    folders = [f'--{name}={folder}' for name, folder in trained.items()]
    ship.main([*folders, f'--out={out}', f'--table={out.parent / "table.json"}', *arguments])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()}


def test_a_model_and_what_it_needs_is_shipped_and_nothing_else(trained, out, capsys):
    before = os.umask(0o077)
    try:
        run(trained, out)
    finally:
        os.umask(before)
    expected = {f'vlm/{name}' for name in VLM_FILES} | {f'sam/{name}' for name in SAM_FILES}
    assert files(out) == expected | {'README.md'}
    for name in expected:
        assert (out / name).read_bytes() == (trained[name[:3]] / name[4:]).read_bytes()
    modes = {path.relative_to(out).as_posix(): path.stat().st_mode & 0o777 for path in (out, *out.rglob('*'))}
    assert {name for name, mode in modes.items() if mode == 0o644} == files(out)
    assert {name for name, mode in modes.items() if mode == 0o755} == {'.', 'vlm', 'sam'}
    assert [path.name for path in out.parent.iterdir()] == ['weights']
    size = sum((out / name).stat().st_size for name in files(out))
    assert f'{size:,} of 8,000,000 bytes' in capsys.readouterr().out


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str):
    return lambda folder: (folder / name).write_text(content)


def pickled(name: str):
    return lambda folder: torch.save({'weight': torch.zeros(2)}, folder / name)


def other_recipe(folder: Path) -> None:
    about = json.loads((folder / 'training.json').read_text())
    about['recipe']['rate'] = 0.5
    (folder / 'training.json').write_text(json.dumps(about))


DAMAGES = {
    'weights': (
        remove('model.safetensors'),
        r'holds no model, model.safetensors is missing; make one with t',
    ),
    'processor': (remove('processor_config.json'), 'holds no model, processor_config.json is missing'),
    'other weights': (pickled('pytorch_model.bin'), r'pytorch_model.bin is a pickle, .*; remove it'),
    'disguised': (pickled('model.safetensors'), 'model.safetensors is no safetensors file'),
    'cut short': (remove('training.json'), 'has no training.json, the end of a training; run tools/vlsam_w'),
    'damaged end': (write('training.json', '{"recipe"'), r'training.json is no JSON .*; make it again'),
    'no object': (write('training.json', '[1]'), r'training.json holds no JSON object; make it again'),
    'no recipe': (write('training.json', '{"minutes": 1}'), 'training.json tells no recipe and minutes'),
    'another end': (other_recipe, r'training.json tells of another training than checkpoint.pt; run'),
}


@pytest.mark.parametrize('name', ['vlm', 'sam'])
@pytest.mark.parametrize('damage', DAMAGES)
def test_what_is_not_fit_is_refused_and_the_former_models_stay(trained, out, name, damage):
    act, sentence = DAMAGES[damage]
    act(trained[name])
    with pytest.raises(UserError, match=sentence) as caught:
        run(trained, out)
    assert str(trained[name]) in str(caught.value)
    assert files(out) == {'vlm/old.json'}
    assert [path.name for path in out.parent.iterdir()] == ['weights']


@pytest.mark.parametrize(('name', 'steps'), [('vlm', 3), ('sam', 7)])
def test_a_training_that_goes_on_is_refused(trained, out, name, steps):
    write_training(trained[name], name, step=2)
    with pytest.raises(UserError, match=rf'{name} is trained for 2 of {steps} steps; run .*train_{name}\.py'):
        run(trained, out)
    assert files(out) == {'vlm/old.json'}


def test_without_its_checkpoint_a_finished_model_is_shipped(trained, out):
    for folder in trained.values():
        (folder / 'checkpoint.pt').unlink()
    run(trained, out)
    assert (out / 'sam/model.safetensors').is_file()


def test_models_that_are_mixed_up_are_refused(trained, out):
    shapes = {name: trained['vlm'] for name in trained}
    with pytest.raises(UserError, match=r'--sam .*vlm is a model of type llava; give one of type sam'):
        run(shapes, out)


def test_eight_million_bytes_and_not_one_more(trained, out, monkeypatch):
    assert ship.LIMIT == 8_000_000
    run(trained, out)
    size = sum((out / name).stat().st_size for name in files(out))
    monkeypatch.setattr(ship, 'LIMIT', size)
    run(trained, out)
    (out / 'kept.txt').touch()
    monkeypatch.setattr(ship, 'LIMIT', size - 1)
    with pytest.raises(UserError, match=rf'the models take {size:,} bytes together, over {size - 1:,}'):
        run(trained, out)
    assert (out / 'kept.txt').exists()


def test_a_swap_that_fails_puts_the_former_models_back(trained, out, monkeypatch):
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(source).name == 'fresh':
            raise OSError('no space left')
        replace(source, target)

    monkeypatch.setattr(ship.os, 'replace', full)
    with pytest.raises(OSError, match='no space left'):
        run(trained, out)
    assert files(out) == {'vlm/old.json'}


def rows(text: str) -> list[list[str]]:
    """The cells of every line of a table."""
    return [[cell.strip() for cell in line[1:-1].split('|')] for line in text.splitlines() if line[:1] == '|']


def test_the_card_tells_what_the_files_hold(trained, out, capsys):
    run(trained, out)
    assert 'without figures: ' in capsys.readouterr().out
    text = (out / 'README.md').read_text()
    found = rows(text)
    for name, kind in (('vlm', 'LlavaForConditionalGeneration'), ('sam', 'SamModel')):
        weights = trained[name] / 'model.safetensors'
        digest, size = hashlib.sha256(weights.read_bytes()).hexdigest(), weights.stat().st_size
        assert [f'{name}/model.safetensors', f'{size:,}', f'`{digest}`'] in found
        count = sum(tensor.numel() for tensor in load_file(weights).values())
        assert [f'`atss_ext::vlsam/world/weights/{name}`', f'`{kind}`', f'{count:,}'] in [
            x[:3] for x in found
        ]
        parts = [row for row in found if row[0] == name]
        assert sum(int(row[-1].replace(',', '')) for row in parts) == count
        assert f'`{name}`, in 21.3 minutes:' in text
    config = json.loads((trained['sam'] / 'config.json').read_text())['mask_decoder_config']
    sizes = [str(config[key]) for key in ('num_hidden_layers', 'hidden_size', 'num_attention_heads')]
    assert [row[:-1] for row in found if row[1:2] == ['mask decoder']] == [['sam', 'mask decoder', *sizes]]
    for row in (
        ['', 'words'],
        ['losses', '0.123'],
        ['', 'precision', 'recall', 'exact'],
        ['names', '0.951', '0.900', '0.896'],
        ['', 'mask iou'],
        ['segmentation, whole, gt box', '0.900'],
        ['segmentation, whole, pair', '0.750'],
        ['objects', '1 to 3; none in 3% of the scenes'],
    ):
        assert row in found
    assert 'naive attention' not in text
    assert '## VL-SAM with these models' not in text


def test_the_card_begins_as_hugging_face_has_it(trained, out):
    run(trained, out)
    head = yaml.safe_load((out / 'README.md').read_text().split('---\n')[1])
    assert (head['license'], head['library_name']) == ('apache-2.0', 'transformers')
    assert {'llava', 'sam', 'toy-model'} <= set(head['tags'])


def test_the_commands_of_the_card_are_those_of_the_trainings(trained, out):
    run(trained, out)
    commands = re.findall(r'^python (\S+) (.*)$', (out / 'README.md').read_text(), flags=re.MULTILINE)
    assert [script for script, _ in commands] == [
        'tools/vlsam_world/train_vlm.py',
        'tools/vlsam_world/train_sam.py',
    ]
    for (_, options), (name, module) in zip(commands, (('vlm', train_vlm), ('sam', train_sam)), strict=True):
        args = vars(module.parse_args(shlex.split(options)))
        wanted = dataclasses.asdict(RECIPES[name])
        assert {key: args[key] for key in wanted} == wanted


def test_the_card_alone_is_written_anew_with_the_table(trained, out):
    run(trained, out)
    before = (out / 'README.md').read_text()
    (out.parent / 'table.json').write_text(json.dumps(TABLE))
    times = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    run(trained, out, '--card-only')
    after = (out / 'README.md').read_text()
    assert ['naive attention', '12.3', '50.0', '25.0', '20.0', '10.0', '4.6'] in rows(after)
    for words in (
        '`python tools/vlsam_world/ablation.py --scenes 200`',
        '0.951',
        '0.942',
        '76%',
        '(seed 17)',
    ):
        assert words in after
    assert [line for line in before.splitlines() if line not in after.splitlines()] == []
    times.pop('README.md')
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times
    assert (out / 'README.md').stat().st_mode & 0o777 == 0o644


def test_a_card_without_models_or_with_half_a_table_is_refused(trained, out):
    with pytest.raises(UserError, match=r'vlm/model.safetensors is missing; ship both models first'):
        run(trained, out, '--card-only')
    run(trained, out)
    kept = (out / 'README.md').read_bytes()
    (out.parent / 'table.json').write_text(json.dumps({'scenes': 200, 'rows': []}))
    with pytest.raises(UserError, match=r"lacks 'names'; make it again with tools/vlsam_world/ablation.py"):
        run(trained, out, '--card-only')
    assert (out / 'README.md').read_bytes() == kept


def test_scores_share_a_table_where_their_keys_are_equal():
    scores = {'a': {'x': 1, 'long_name': 0.5, 'deeper': {'x': 0, 'long_name': 2}}, 'b': {'y': 0.25}, 'c': 3}
    assert model_card.score_tables({'a': scores['a'], 'b': scores['b']}) == (
        '| | x | long name |\n|---|--:|--:|\n| a | 1.000 | 0.500 |\n| a, deeper | 0.000 | 2.000 |\n\n'
        '| | y |\n|---|--:|\n| b | 0.250 |'
    )
    assert model_card.score_tables(scores).startswith('| | c |\n|---|--:|\n|  | 3.000 |\n\n| | x |')
