"""A config for a data set of one's own: its classes, and sentences for files that cannot serve."""

import json
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'datasets'))

import make_config

from atss_ext.datasets.checks import DataError
from atss_ext.datasets.own_config import class_names, own_config
from atss_ext.errors import UserError


def coco(path: Path, categories) -> Path:
    content = {'images': [], 'annotations': [], 'categories': categories}
    path.write_text(json.dumps(content))
    return path


def test_classes_come_in_the_order_of_the_list_and_not_of_ids(tmp_path):
    file = coco(tmp_path / 'a.json', [{'id': 7, 'name': "dog's"}, {'id': 2, 'name': 'Übung "x"'}])
    assert class_names(file) == ("dog's", 'Übung "x"')


@pytest.mark.parametrize('base', [make_config.BASE, make_config.SMALL_BASE])
def test_the_config_resolves_to_the_files(tmp_path, base):
    names = [f'class {number}' for number in range(40)]
    categories = [{'id': number, 'name': name} for number, name in enumerate(names)]
    train, val = coco(tmp_path / 'train.json', categories), coco(tmp_path / 'val.json', categories)
    text = own_config(base, train, tmp_path / 'a', val, tmp_path / 'b')
    (tmp_path / 'own.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'own.py')
    assert cfg.model.bbox_head.num_classes == 40
    assert cfg.model.bbox_head.type == 'atss_ext.ATSSHead'
    for loader, file, folder in (
        (cfg.train_dataloader, train, 'a'),
        (cfg.val_dataloader, val, 'b'),
        (cfg.test_dataloader, val, 'b'),
    ):
        assert list(loader.dataset.metainfo.classes) == names
        assert loader.dataset.ann_file == str(file)
        assert loader.dataset.data_prefix.img == f'{tmp_path / folder}/'
        assert loader.dataset.data_root == ''
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(val)
    assert max(map(len, text.splitlines())) <= 200


@pytest.mark.parametrize(
    ('categories', 'sentence'),
    [
        ([], 'has no list of categories'),
        ({'id': 1}, 'has no list of categories'),
        ([{'id': 1, 'name': 'a'}, {'id': 2}], r"category 1 of .* is \{'id': 2\}: give it a name"),
        ([{'id': 1, 'name': 'a'}, 3], 'category 1 of .* is 3: give it a name'),
        ([{'id': 1, 'name': 'a'}, {'id': 2, 'name': 'a'}], "has two categories named 'a'"),
    ],
)
def test_categories_that_cannot_be_classes_are_named(tmp_path, categories, sentence):
    with pytest.raises(DataError, match=sentence):
        class_names(coco(tmp_path / 'a.json', categories))


def test_both_files_must_have_the_same_classes(tmp_path):
    a, b = {'id': 1, 'name': 'a'}, {'id': 2, 'name': 'b'}
    train, val = coco(tmp_path / 'train.json', [a, b]), coco(tmp_path / 'val.json', [b, a])
    with pytest.raises(DataError, match=r"val.json lists the categories \['b', 'a'\], .* in the same order"):
        own_config('x', train, tmp_path, val, tmp_path)


def test_mistakes_on_the_command_line_are_one_sentence(tmp_path):
    file = coco(tmp_path / 'a.json', [{'id': 1, 'name': 'a'}])
    for images, out, sentence in (
        (['none'], 'c.py', 'none is no folder; name the folder'),
        ([tmp_path], 'c.txt', 'c.txt must end in .py'),
        ([tmp_path] * 3, 'c.py', 'takes one folder or two .* got 3'),
    ):
        arguments = [file, file, '--images', *images, '--out', tmp_path / out]
        with pytest.raises(UserError, match=sentence):
            make_config.main(list(map(str, arguments)))
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']


def test_the_command_writes_it_and_names_the_next(tmp_path, capsys):
    file = coco(tmp_path / 'a.json', [{'id': 1, 'name': 'a'}])
    out = tmp_path / 'new' / 'c.py'
    make_config.main([str(file), str(file), '--images', str(tmp_path), '--small', '--out', str(out)])
    assert out.read_text() == own_config(make_config.SMALL_BASE, file, tmp_path, file, tmp_path)
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f'python tools/train.py {out}'
    assert said.err == (
        f'note: {file} has 0 images, of which a detector learns little; label some hundred, or leave '
        "--small away for a network with ImageNet's weights\n"
    )


def test_enough_images_are_not_spoken_of(tmp_path, capsys):
    content = {'images': [{'id': number} for number in range(100)], 'annotations': []}
    file = tmp_path / 'a.json'
    file.write_text(json.dumps({**content, 'categories': [{'id': 1, 'name': 'a'}]}))
    make_config.main([str(file), str(file), '--images', str(tmp_path), '--out', str(tmp_path / 'c.py')])
    assert capsys.readouterr().err == ''
