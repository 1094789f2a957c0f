"""VOC to COCO on literal files; and what a stranger's XML may not do."""

import json
import re
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'datasets'))

import voc_to_coco
from _voc_xml import read_voc

from atss_ext.datasets.annotation_checks import check_annotations
from atss_ext.errors import UserError

SIZE = '<size><width>100</width><height>80</height><depth>3</depth></size>'


def thing(name, *corners, more=''):
    tags = zip(('xmin', 'ymin', 'xmax', 'ymax'), corners, strict=True)
    box = ''.join(f'<{tag}>{value}</{tag}>' for tag, value in tags)
    return f'<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>'


def write(folder, stem, *things, size=SIZE, name=None):
    folder.mkdir(exist_ok=True)
    lines = ['<annotation>', f'<filename>{name or stem + ".jpg"}</filename>', size, *things, '</annotation>']
    path = folder / f'{stem}.xml'
    path.write_text('\n'.join(lines))
    return path


def convert(tmp_path, *options):
    voc_to_coco.main([str(tmp_path / 'xml'), str(tmp_path / 'out.json'), *map(str, options)])
    return json.loads((tmp_path / 'out.json').read_text())


@pytest.fixture
def folder(tmp_path):
    xml = tmp_path / 'xml'
    part = '<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>'
    dog = thing('dog', 11, 21, 30, 60, more=f'<difficult>1</difficult><truncated>0</truncated>{part}')
    write(xml, '10', thing('cat', 1, 1, 100, 80), dog)
    write(xml, '9', thing('dog', 2.5, 3, 4, 5), size='<size><width>50</width><height>50</height></size>')
    write(xml, '11')
    return xml


def test_literal(folder, tmp_path, capsys):
    """Images in natural order, categories in alphabetical; VOC's pixels count from 1 and are included."""
    content = convert(tmp_path)
    assert content == {
        'images': [
            {'id': 1, 'file_name': '9.jpg', 'width': 50, 'height': 50},
            {'id': 2, 'file_name': '10.jpg', 'width': 100, 'height': 80},
            {'id': 3, 'file_name': '11.jpg', 'width': 100, 'height': 80},
        ],
        'annotations': [
            {'id': 1, 'image_id': 1, 'category_id': 2, 'bbox': [1.5, 2, 2.5, 3], 'area': 7.5, 'iscrowd': 0},
            {'id': 2, 'image_id': 2, 'category_id': 1, 'bbox': [0, 0, 100, 80], 'area': 8000, 'iscrowd': 0},
            {'id': 3, 'image_id': 2, 'category_id': 2, 'bbox': [10, 20, 20, 40], 'area': 800, 'iscrowd': 1,
             'difficult': 1, 'truncated': 0},
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    }  # fmt: skip
    assert check_annotations(content).findings == ()
    captured = capsys.readouterr()
    assert '3 images, 3 annotations (1 of them difficult, as crowds) and 2 categories' in captured.out
    assert captured.err == 'files: 3/3\n'


def test_the_same_bytes_again_and_no_half_file(folder, tmp_path):
    convert(tmp_path)
    first = (tmp_path / 'out.json').read_bytes()
    convert(tmp_path)
    assert (tmp_path / 'out.json').read_bytes() == first
    write(folder, '12', thing('dog', 5, 5, 4, 9))
    with pytest.raises(UserError):
        convert(tmp_path)
    assert (tmp_path / 'out.json').read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out.json', 'xml']


@pytest.mark.parametrize(
    ('difficult', 'crowds'), [('crowd', [0, 0, 1]), ('keep', [0, 0, 0]), ('drop', [0, 0])]
)
def test_difficult(folder, tmp_path, difficult, crowds):
    content = convert(tmp_path, '--difficult', difficult)
    assert [entry['iscrowd'] for entry in content['annotations']] == crowds
    assert [entry['id'] for entry in content['annotations']] == list(range(1, len(crowds) + 1))


def test_corners(tmp_path):
    write(tmp_path / 'xml', 'a', thing('cat', 0, 0, 100, 80), thing('cat', 5, 6, 7, 9))
    boxes = [entry['bbox'] for entry in convert(tmp_path, '--convention', 'corners')['annotations']]
    assert boxes == [[0, 0, 100, 80], [5, 6, 2, 3]]
    with pytest.raises(UserError, match=r'a\.xml, line 4: xmin, ymin are 0, 0, but .* --convention corners'):
        convert(tmp_path)


def test_names_give_the_order_and_must_hold_all(folder, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('dog\n\ncow\ncat\n')
    for option in ('dog,cow,cat', names):
        categories = convert(tmp_path, '--names', option)['categories']
        assert categories == [{'id': 1, 'name': 'dog'}, {'id': 2, 'name': 'cow'}, {'id': 3, 'name': 'cat'}]
    with pytest.raises(
        UserError, match=r"10\.xml, line 4: class 'cat' is not among --names dog, cow; add it"
    ):
        convert(tmp_path, '--names', 'dog,cow')
    with pytest.raises(UserError, match="class 'dog' stands twice in --names"):
        convert(tmp_path, '--names', 'dog,cat,dog')
    many = ['cat', 'dog', *(f'a class of number {number}' for number in range(300))]  # longer than any path
    assert [one['name'] for one in convert(tmp_path, '--names', ','.join(many))['categories']] == many


def test_a_split_takes_its_names_alone(folder, tmp_path):
    split = tmp_path / 'train.txt'
    split.write_text('11\n9  1\n10 -1\n')  # the second column is what VOC's lists of one class have
    assert [image['file_name'] for image in convert(tmp_path, '--split', split)['images']] == [
        '9.jpg',
        '11.jpg',
    ]
    split.write_text('11\n12\n')
    with pytest.raises(UserError, match=r'train\.txt, line 2: there is no 12\.xml'):
        convert(tmp_path, '--split', split)


def test_images_give_missing_sizes_and_names_and_are_compared(tmp_path):
    xml, images = tmp_path / 'xml', tmp_path / 'images'
    images.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 8
    Image.new('RGB', (80, 100)).save(images / 'a.png', exif=turned)  # 100 x 80 as it is seen
    path = write(xml, 'a', thing('cat', 1, 1, 100, 80), size='', name='old/a.jpg')
    assert convert(tmp_path, '--images', images)['images'] == [
        {'id': 1, 'file_name': 'a.png', 'width': 100, 'height': 80}
    ]
    with pytest.raises(UserError, match=r'a\.xml has no <size>'):
        convert(tmp_path)
    path.write_text(path.read_text().replace('<object>', SIZE.replace('100', '90') + '<object>', 1))
    with pytest.raises(UserError, match=r'a\.xml says 90 x 80 pixels, but .*a\.png has 100 x 80'):
        convert(tmp_path, '--images', images)
    (images / 'a.png').unlink()
    with pytest.raises(UserError, match=r'the image of .*a\.xml .* is not in'):
        convert(tmp_path, '--images', images)


FAULTS = {
    'inverted': (thing('cat', 9, 2, 8, 4), 'line 4: xmin, ymin, xmax, ymax are 9, 2, 8, 4, an inverted box'),
    'outside': (thing('cat', 101, 2, 108, 4), 'line 4: the box lies outside of its image of 100 x 80'),
    'a text': (thing('cat', 'x', 2, 8, 4), "line 4: <xmin> is 'x', not a number"),
    'nan': (thing('cat', 'nan', 2, 8, 4), "line 4: <xmin> is 'nan', not a number"),
    'no name': (thing(' ', 1, 2, 8, 4), 'line 4: the object has no <name>'),
    'no box': ('<object><name>cat</name></object>', "line 4: the object 'cat' has no <bndbox>"),
    'no xmax': ('<object><name>c</name><bndbox>\n<xmin>1</xmin><ymin>2</ymin>\n</bndbox></object>',
                'line 4: <bndbox> has no <xmax>'),
    'not closed': ('<object>', 'line 5: it is no valid XML (mismatched tag)'),
    'deep': ('\n'.join(['<a>'] * 40 + ['</a>'] * 40), 'line 35: more than 32 elements'),
}  # fmt: skip


@pytest.mark.parametrize('fault', FAULTS)
def test_each_fault_names_file_and_line(tmp_path, fault):
    inside, expected = FAULTS[fault]
    write(tmp_path / 'xml', 'a', inside)
    with pytest.raises(UserError) as caught:
        convert(tmp_path)
    assert expected in str(caught.value)
    assert str(tmp_path / 'xml' / 'a.xml') in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['../a.jpg', '/etc/a.jpg', '..\\a.jpg', 'C:/old/a.jpg', 'b/../../a.jpg'])
def test_no_image_out_of_its_folder(tmp_path, name):
    write(tmp_path / 'xml', 'a', thing('cat', 1, 1, 2, 2), name=name)
    with pytest.raises(UserError, match='a path out of the image folder'):
        convert(tmp_path)
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (100, 80)).save(tmp_path / 'a.jpg')  # what the names lead to
    with pytest.raises(UserError, match='is not in'):
        convert(tmp_path, '--images', tmp_path / 'images')
    Image.new('RGB', (100, 80)).save(tmp_path / 'images' / 'a.jpg')
    (image,) = convert(tmp_path, '--images', tmp_path / 'images')['images']
    assert image['file_name'] == 'a.jpg'


def test_entities_are_neither_expanded_nor_fetched(tmp_path):
    secret = tmp_path / 'secret.txt'
    secret.write_text('cat')
    levels = ''.join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    documents = {
        'bomb': f'<!DOCTYPE a [<!ENTITY e0 "lol">{levels}]>\n<annotation>&e9;</annotation>',
        'file': f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]>\n<annotation>&x;</annotation>',
        'dtd': f'<!DOCTYPE a SYSTEM "file://{secret}">\n<annotation/>',
        'parameter': '<!DOCTYPE a [<!ENTITY % p SYSTEM "http://localhost:9/x"> %p;]>\n<annotation/>',
    }  # fmt: skip
    for name, text in documents.items():
        path = tmp_path / f'{name}.xml'
        path.write_text(text)
        start = time.monotonic()
        with pytest.raises(UserError, match=r'line 1: it declares a document type'):
            read_voc(path)
        assert time.monotonic() - start < 1
    path.write_text('<annotation><filename>&unknown;</filename></annotation>')
    with pytest.raises(UserError, match='no valid XML'):
        read_voc(path)


def test_nothing_that_is_read_is_written_over(folder, tmp_path, monkeypatch):
    images, split, names = tmp_path / 'images', tmp_path / 'train.txt', tmp_path / 'names.txt'
    images.mkdir()
    for stem, size in (('9', (50, 50)), ('10', (100, 80)), ('11', (100, 80))):
        Image.new('RGB', size).save(images / f'{stem}.jpg')
    split.write_text('9\n')
    names.write_text('dog\ncat\n')
    (tmp_path / 'link.json').symlink_to(folder / '9.xml')
    options = ['--images', str(images), '--split', str(split), '--names', str(names)]
    for out in (folder / '9.xml', folder / '10.xml', tmp_path / 'link.json', split, names, images / '9.jpg'):
        before = out.read_bytes()
        with pytest.raises(
            UserError, match=f'^out {re.escape(str(out))} is a file that is read; choose another'
        ):
            voc_to_coco.main([str(folder), str(out), *options])
        assert out.read_bytes() == before
    voc_to_coco.main([str(folder), str(folder / 'out.json'), *options])  # beside them is no harm
    monkeypatch.setattr(voc_to_coco, 'read_voc', None)  # a folder is seen before anything is read
    with pytest.raises(UserError, match=r'images is a folder; name a file'):
        voc_to_coco.main([str(folder), str(images)])


def test_other_files_and_folders(tmp_path):
    with pytest.raises(UserError, match='xml does not exist'):
        convert(tmp_path)
    (tmp_path / 'xml').mkdir()
    with pytest.raises(UserError, match='has no XML file'):
        convert(tmp_path)
    (tmp_path / 'xml' / 'a.xml').write_text('<svg/>')
    with pytest.raises(UserError, match='line 1: starts with <svg> instead of <annotation>'):
        convert(tmp_path)
