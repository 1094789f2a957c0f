"""YOLO to COCO on literal files."""

import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'datasets'))

import yolo_to_coco

from atss_ext.datasets.annotation_checks import check_annotations
from atss_ext.errors import UserError


@pytest.fixture
def data(tmp_path):
    """Three images of 200 x 100 pixels: a box and a polygon (lies turned), an empty file, no file."""
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / 'images' / 'train').mkdir(parents=True)
    (tmp_path / 'labels' / 'train').mkdir(parents=True)
    Image.new('RGB', (100, 200)).save(tmp_path / 'images' / 'train' / '9.jpg', exif=turned)
    for name in ('10.png', '11.jpg'):
        Image.new('RGB', (200, 100)).save(tmp_path / 'images' / 'train' / name)
    lines = ['1 0.5 0.5 0.25 0.5', '', '0 0.1 0.2 0.3 0.2 0.3 0.8 0.1 0.8']
    (tmp_path / 'labels' / 'train' / '9.txt').write_text('\n'.join(lines))
    (tmp_path / 'labels' / 'train' / '10.txt').write_text('')
    (tmp_path / 'labels' / 'train' / 'classes.txt').write_text('cat\ndog\n')
    (tmp_path / 'data.yaml').write_text('train: images/train\nnames:\n  0: cat\n  1: dog\n')
    return tmp_path


def convert(data, *options):
    options = [str(option) for option in options] or ['--data', str(data / 'data.yaml')]
    yolo_to_coco.main([str(data / 'images' / 'train'), str(data / 'out.json'), *options])
    return json.loads((data / 'out.json').read_text())


def test_literal(data, capsys):
    content = convert(data)
    assert content == {
        'images': [
            {'id': 1, 'file_name': '9.jpg', 'width': 200, 'height': 100},
            {'id': 2, 'file_name': '10.png', 'width': 200, 'height': 100},
            {'id': 3, 'file_name': '11.jpg', 'width': 200, 'height': 100},
        ],
        'annotations': [
            {'id': 1, 'image_id': 1, 'category_id': 2, 'bbox': [75.0, 25.0, 50.0, 50.0], 'area': 2500.0,
             'iscrowd': 0},
            {'id': 2, 'image_id': 1, 'category_id': 1, 'bbox': [20.0, 20.0, 40.0, 60.0], 'area': 2400.0,
             'segmentation': [[20.0, 20.0, 60.0, 20.0, 60.0, 80.0, 20.0, 80.0]], 'iscrowd': 0},
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    }  # fmt: skip
    report = check_annotations(content, images=data / 'images' / 'train')
    assert [finding.code for finding in report.findings] == ['segment-missing']
    captured = capsys.readouterr()
    assert '3 images (2 of them without an object), 2 annotations and 2 categories' in captured.out
    assert captured.err.startswith('images: 3/3\nwarning: the annotation has no segmentation while others')


def test_the_area_of_a_polygon_is_its_own_not_its_boxs(data):
    (data / 'labels' / 'train' / '9.txt').write_text('0 0 0 0.5 0 0 1')
    (entry,) = convert(data)['annotations']
    assert (entry['bbox'], entry['area']) == ([0.0, 0.0, 100.0, 100.0], 5000.0)


def test_names_as_list_as_option_and_as_mapping(data):
    expected = convert(data)
    first = (data / 'out.json').read_bytes()
    (data / 'list.yaml').write_text('names: [cat, dog]\n')
    for options in (['--names', 'cat,dog'], ['--data', data / 'list.yaml']):
        assert convert(data, *options) == expected
        assert (data / 'out.json').read_bytes() == first
    assert convert(data, '--names', 'cat,dog', '--labels', data / 'labels' / 'train') == expected


NAMES = {
    'gap': ('names: {0: cat, 2: dog}', "'names' of .* has the keys 0, 2; they have to be 0 to 1"),
    'none': ('nc: 2', "has no list 'names'"),
    'a text': ('names: cat', "has no list 'names'"),
    'no yaml': ('names: [cat', 'is no valid YAML'),
    'an object': ('names: !!python/object/apply:os.system ["true"]', 'is no valid YAML'),
    'twice': ('names: [cat, cat]', "class 'cat' stands twice"),
}


@pytest.mark.parametrize('case', NAMES)
def test_bad_names(data, case):
    text, expected = NAMES[case]
    (data / 'data.yaml').write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        convert(data)
    assert '\n' not in str(caught.value)


LINES = {
    'class': ('2 0.5 0.5 0.1 0.1', 'class 2 is not one of 0 to 1'),
    'class a fraction': ('0.5 0.5 0.5 0.1 0.1', 'class 0.5 is not one of 0 to 1'),
    'class nan': ('nan 0.5 0.5 0.1 0.1', 'class nan is not one of 0 to 1'),
    'a text': ('0 0.5 0.5 0.1 x', "'x' is not a number"),
    'pixels': ('0 50 0.5 0.1 0.1', '50 is not between 0 and 1'),
    'negative': ('0 -0.5 0.5 0.1 0.1', '-0.5 is not between 0 and 1'),
    'nan': ('0 0.5 nan 0.1 0.1', 'nan is not between 0 and 1'),
    'empty': ('0 0.5 0.5 0.1 0', 'no width or no height'),
    'four numbers': ('0 0.5 0.5 0.1', '4 numbers are neither a box (5) nor a polygon (7, 9, 11, ...)'),
    'eight numbers': ('0 0.1 0.1 0.2 0.2 0.3 0.4 0.5', '8 numbers are neither'),
    'a detection': ('0 0.5 0.5 0.1 0.1 0.9', 'a detection with its confidence'),
    'a line': ('0 0.1 0.1 0.2 0.2 0.3 0.3', 'the polygon has no area'),
}


@pytest.mark.parametrize('case', LINES)
def test_a_bad_line_is_named(data, case):
    text, expected = LINES[case]
    path = data / 'labels' / 'train' / '10.txt'
    path.write_text(f'0 0.5 0.5 0.1 0.1\n\n{text}\n')
    with pytest.raises(UserError) as caught:
        convert(data)
    assert f'{path}, line 3: ' in str(caught.value)
    assert expected in str(caught.value)
    assert '\n' not in str(caught.value)
    assert not (data / 'out.json').exists()


def test_files_that_do_not_match(data):
    (data / 'labels' / 'train' / '12.txt').write_text('')
    with pytest.raises(UserError, match=r'there is no image in .* for .*12\.txt \(1 such files\)'):
        convert(data)
    (data / 'labels' / 'train' / '12.txt').unlink()
    Image.new('RGB', (9, 9)).save(data / 'images' / 'train' / '9.png')
    with pytest.raises(UserError, match='several images called 9, and one label file'):
        convert(data)


def test_nothing_that_is_read_is_written_over(data, monkeypatch):
    names, yaml = data / 'names.txt', data / 'data.yaml'
    names.write_text('cat\ndog\n')
    images, labels = data / 'images' / 'train', data / 'labels' / 'train'
    for out, option in (
        (labels / '9.txt', ['--names', 'cat,dog']),
        (images / '10.png', ['--names', 'cat,dog']),
        (yaml, ['--data', str(yaml)]),
        (names, ['--names', str(names)]),
    ):
        before = out.read_bytes()
        with pytest.raises(
            UserError, match=f'^out {re.escape(str(out))} is a file that is read; choose another'
        ):
            yolo_to_coco.main([str(images), str(out), *option])
        assert out.read_bytes() == before
    monkeypatch.setattr(yolo_to_coco, 'image_size', None)  # a folder is seen before anything is read
    with pytest.raises(UserError, match='train is a folder; name a file'):
        yolo_to_coco.main([str(images), str(labels), '--names', 'cat,dog'])


def test_damaged_images_and_missing_folders(data, tmp_path_factory):
    (data / 'images' / 'train' / '11.jpg').write_bytes(b'no image')
    with pytest.raises(UserError, match=r'image .*11\.jpg cannot be read'):
        convert(data)
    other = tmp_path_factory.mktemp('photos')
    with pytest.raises(UserError, match=r"has no folder 'images' in its path; name .* --labels"):
        yolo_to_coco.main([str(other), str(data / 'out.json'), '--names', 'cat'])
    with pytest.raises(UserError, match='has no image'):
        yolo_to_coco.main([str(other), str(data / 'o.json'), '--names', 'cat', '--labels', str(other)])
    with pytest.raises(UserError, match='none does not exist'):
        convert(data, '--names', 'cat,dog', '--labels', data / 'none')
