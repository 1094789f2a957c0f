"""Converters, subsets and the checker on files as other systems and editors leave them."""

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_annotations import coda_file, lvis_file

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'datasets'))

import check_annotations
import subset
import voc_to_coco
import yolo_to_coco

from atss_ext.errors import UserError

BOM = b'\xef\xbb\xbf'
XML = """<annotation>\r
<filename>{name}</filename><size><width>20</width><height>10</height></size>\r
<object><name>猫</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax></bndbox></object>\r
</annotation>\r
"""


def voc(folder, stem, name):
    folder.mkdir(exist_ok=True)
    (folder / f'{stem}.xml').write_bytes(BOM + XML.format(name=name).encode())


def read_voc(tmp_path, *options):
    voc_to_coco.main([str(tmp_path / 'voc'), str(tmp_path / 'out.json'), *map(str, options)])
    return json.loads((tmp_path / 'out.json').read_text(encoding='utf-8'))


def test_voc_with_windows_line_ends_marks_and_slashes(tmp_path):
    voc(tmp_path / 'voc', 'Größe 1', 'teil\\Größe 1.jpg')
    content = read_voc(tmp_path)
    assert content['images'] == [{'id': 1, 'file_name': 'teil/Größe 1.jpg', 'width': 20, 'height': 10}]
    assert content['categories'] == [{'id': 1, 'name': '猫'}]
    assert content['annotations'][0]['bbox'] == [0, 1, 8, 8]


def test_a_split_of_an_editor_with_blanks_in_names(tmp_path):
    for stem in ('a', 'photo 1', 'photo 2'):
        voc(tmp_path / 'voc', stem, f'{stem}.jpg')
    split = tmp_path / 'split.txt'
    split.write_bytes(BOM + b'photo 1\r\n\r\na  1\r\n')
    names = [image['file_name'] for image in read_voc(tmp_path, '--split', split)['images']]
    assert names == ['a.jpg', 'photo 1.jpg']
    split.write_bytes('größe'.encode('latin-1'))
    with pytest.raises(UserError, match=r'split.txt is no text in UTF-8'):
        read_voc(tmp_path, '--split', split)


@pytest.fixture
def yolo(tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    Image.new('RGB', (200, 100)).save(tmp_path / 'images' / '图.PNG')
    (tmp_path / 'labels' / '图.txt').write_bytes(BOM + b'1 0.5 0.5 0.25 0.5\r\n\r\n')
    return tmp_path


def read_yolo(root, *options):
    yolo_to_coco.main([str(root / 'images'), str(root / 'out.json'), *map(str, options)])
    return json.loads((root / 'out.json').read_text(encoding='utf-8'))


def test_yolo_with_windows_line_ends_and_marks(yolo):
    (yolo / 'names.txt').write_bytes(BOM + b'cat\r\nchien\r\n')
    (yolo / 'data.yaml').write_bytes(BOM + b'names:\r\n- cat\r\n- chien\r\n')
    for options in (('--names', yolo / 'names.txt'), ('--data', yolo / 'data.yaml')):
        content = read_yolo(yolo, *options)
        assert [one['name'] for one in content['categories']] == ['cat', 'chien']
        assert content['images'][0]['file_name'] == '图.PNG'
        assert (content['annotations'][0]['bbox'], content['annotations'][0]['category_id']) == (
            [75, 25, 50, 50],
            2,
        )


NAMES = {
    'a file that is not there': ('gone.txt', 'gone.txt: this file does not exist'),
    'a file of YAML': ('data.yaml', r'data.yaml is no list of names, one a line'),
}


@pytest.mark.parametrize('case', NAMES)
def test_names_that_are_hardly_meant(yolo, case):
    name, sentence = NAMES[case]
    with pytest.raises(UserError, match=sentence):
        read_yolo(yolo, '--names', yolo / name)


@pytest.mark.parametrize(
    ('names', 'value'), [('[yes, cat]', True), ('[cat, {a: b}]', {'a': 'b'}), ('[~]', None)]
)
def test_names_that_yaml_takes_for_something_else(yolo, names, value):
    (yolo / 'data.yaml').write_text(f'names: {names}')
    with pytest.raises(UserError, match='for YAML; put the name in quotes') as caught:
        read_yolo(yolo, '--data', yolo / 'data.yaml')
    assert f'is {value!r}' in str(caught.value)


def test_a_file_name_that_json_cannot_hold(yolo):
    os.rename(yolo / 'images' / '图.PNG', os.fsencode(yolo) + b'/images/gr\xf6.png')
    with pytest.raises(UserError, match=r'the name of .*gr.udcf6.png. is no UTF-8; rename the file'):
        read_yolo(yolo, '--names', 'a,b')
    assert not (yolo / 'out.json').exists()


@pytest.mark.parametrize('make', [lvis_file, coda_file])
def test_a_part_of_lvis_and_of_coda_keeps_what_is_theirs(tmp_path, make, capsys):
    whole = make()
    (tmp_path / 'all.json').write_text(json.dumps(whole))
    subset.main([str(tmp_path / 'all.json'), str(tmp_path / 'new' / 'part.json'), '--images', '1'])
    part = json.loads((tmp_path / 'new' / 'part.json').read_text())
    image = part['images'][0]
    assert image in whole['images']
    assert part['categories'] == whole['categories']
    assert part['annotations'] == [one for one in whole['annotations'] if one['image_id'] == image['id']]
    kept = {lvis_file: {'neg_category_ids', 'not_exhaustive_category_ids'}, coda_file: {'period', 'weather'}}[
        make
    ]
    assert kept <= set(image)


def test_a_large_file_is_said_to_take_a_while(tmp_path, capsys, monkeypatch):
    file = tmp_path / 'all.json'
    file.write_text(json.dumps(coda_file()))
    check_annotations.main([str(file)])
    assert capsys.readouterr().err == ''
    monkeypatch.setattr(check_annotations, 'LARGE', 10)
    check_annotations.main([str(file)])
    assert capsys.readouterr().err.startswith(f'note: {file} has 0 MB; that takes')
