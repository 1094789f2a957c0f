"""What a check reads besides fields: run lengths, image files, broken files; and the command."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycoco
from pycocotools.coco import COCO
from small_annotations import coco_file, image, lvis_file

from atss_ext.datasets import ShapesSpec, write_coco
from atss_ext.datasets.annotation_checks import check_annotations, check_file, read_annotations
from atss_ext.datasets.annotation_checks.images import check_images
from atss_ext.datasets.annotation_checks.table import read_table
from atss_ext.datasets.checks import DataError
from atss_ext.datasets.segmentation import rle_lengths

TOOL = Path(__file__).parents[2] / 'tools' / 'datasets' / 'check_annotations.py'
A = 'annotations'


@pytest.fixture
def coco():
    return coco_file()


@pytest.fixture
def lvis():
    return lvis_file()


def test_compressed_run_lengths_against_pycocotools():
    rng = np.random.default_rng(3)
    for height, width in ((1, 1), (7, 5), (60, 90), (600, 800)):
        for density in (0.0, 0.02, 0.5, 1.0):
            mask = np.asfortranarray(rng.random((height, width)) < density, np.uint8)
            mask[: height // 2] = 0
            counts = pycoco.encode(mask)['counts']
            flat = mask.flatten(order='F')
            edges = np.flatnonzero(np.diff(flat)) + 1
            runs = np.diff([0, *edges, flat.size]).tolist()
            expected = [0, *runs] if flat[0] else runs
            assert rle_lengths(counts).tolist() == expected
            assert rle_lengths(counts.decode()).tolist() == expected


@pytest.mark.parametrize('text', ['P', '0 0', '\x7f', 'PPPPPPPPPPPPPP0'])
def test_damaged_run_lengths_are_refused(text):
    with pytest.raises(ValueError):
        rle_lengths(text)


def test_image_files(coco, tmp_path):
    for name, size in (('1.jpg', (100, 80)), ('2.jpg', (80, 100)), ('3.jpg', (20, 20)), ('5.jpg', (100, 80))):
        Image.new('RGB', size).save(tmp_path / name)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new('RGB', (100, 80)).save(tmp_path / '5.jpg', exif=turned)
    (tmp_path / '6.jpg').write_bytes(b'no image')
    coco['images'] += [image(4), image(5), image(6)]
    done = []
    table, _ = read_table(coco)
    findings = check_images(table, tmp_path, lambda *progress: done.append(progress))
    assert {item.code: (item.severity, item.examples) for item in findings} == {
        'file-missing': ('error', (4,)),
        'file-unreadable': ('error', (6,)),
        'file-size': ('error', (2,)),
        'file-turned': ('error', (5,)),
    }
    assert done == [(6, 6)]


def missing(content, folder):
    return {item.code: item.examples for item in check_annotations(content, images=folder).findings}


def test_images_of_lvis_lie_where_their_address_says(lvis, tmp_path):
    (tmp_path / 'val2017').mkdir()
    for number in (1, 2):
        Image.new('RGB', (100, 80)).save(tmp_path / 'val2017' / f'{number}.jpg')
    assert missing(lvis, tmp_path) == {'file-missing': (3,)}
    Image.new('RGB', (100, 80)).save(tmp_path / 'val2017' / '3.jpg')
    assert missing(lvis, tmp_path / 'val2017') == {}


def test_the_shapes_world_is_sound(tmp_path):
    """Compressed run lengths, areas of masks and real image files."""
    folder = write_coco(
        tmp_path, 'train', 6, ShapesSpec(width=96, height=64, min_size=12, max_size=40), seed=5
    )
    content = read_annotations(folder / 'annotations.json')
    assert sum(isinstance(entry['segmentation']['counts'], str) for entry in content[A]) > 5
    report = check_annotations(content, images=folder / 'images')
    assert {item.code for item in report.findings} <= {'category-unused'}
    content[A][0]['segmentation']['counts'] = content[A][1]['segmentation']['counts'][:-1]
    assert check_annotations(content).findings[0].code == 'rle-counts'


FILES = {
    'cut off': ('{"images": [', 'is no valid JSON', 'fetch or write it again'),
    'empty': ('', 'is no valid JSON', 'fetch or write it again'),
    'results': ('[{"image_id": 1, "score": 0.5}]', 'a list of detections', 'name the other one'),
    'a number': ('3', "has no list 'images'", 'COCO, LVIS or CODA'),
    'images no list': ('{"images": {}}', "has no list 'images'", 'COCO, LVIS or CODA'),
}


@pytest.mark.parametrize('case', FILES)
def test_what_is_no_annotation_file_is_said_in_a_sentence(case, tmp_path):
    text, *parts = FILES[case]
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_annotations(path)
    assert all(part in str(caught.value) for part in [str(path), *parts])
    assert '\n' not in str(caught.value)


ENCODINGS = {
    'utf-8': None,
    'utf-8-sig': 'begins with a byte order mark',
    'utf-16': 'is in UTF-16',
    'utf-32-be': 'is in UTF-32-BE',
}


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_text_that_other_readers_do_not_take(coco, tmp_path, encoding):
    """The oracle is pycocotools: it stops at what is an error here."""
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(coco), encoding=encoding)
    findings = check_file(path, read_annotations(path)).findings
    if ENCODINGS[encoding] is None:
        assert findings == ()
        assert len(COCO(path).anns) == 4
        return
    (finding,) = findings
    assert (finding.code, finding.severity, finding.count) == ('encoding', 'error', 1)
    assert ENCODINGS[encoding] in finding.message
    with pytest.raises(ValueError):
        COCO(path)


def test_missing_files_and_folders(coco, tmp_path):
    with pytest.raises(DataError, match=r'a\.json does not exist'):
        read_annotations(tmp_path / 'a.json')
    with pytest.raises(DataError, match=r'image folder .*none does not exist'):
        check_annotations(coco, images=tmp_path / 'none')


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    monkeypatch.syspath_prepend(str(TOOL.parent))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TOOL), run_name='__main__')
    return ended.value.code


def test_the_command_its_table_its_json_and_its_exit_codes(coco, tmp_path, monkeypatch, capsys):
    sound, faulty, report = tmp_path / 'sound.json', tmp_path / 'faulty.json', tmp_path / 'report.json'
    sound.write_text(json.dumps(coco))
    assert run_tool(monkeypatch, sound) == 0
    out = capsys.readouterr().out
    assert 'sound.json (COCO): images: 3' in out
    assert 'nothing is wrong with it' in out

    coco[A][1]['bbox'] = [9, 9, -3, 4]
    coco['categories'].append({'id': 9, 'name': 'cow'})
    faulty.write_text(json.dumps(coco))
    assert run_tool(monkeypatch, faulty, '--json', report) == 1
    out = capsys.readouterr().out
    lines = out.splitlines()
    (line,) = [line for line in lines if line.startswith('error')]
    assert line.split()[:2] == ['error', '1']
    assert '[box-negative]: 12' in ' '.join(out.split())
    assert 'kinds of errors: 1, kinds of warnings: 1' in lines
    content = json.loads(report.read_text())
    assert (content['errors'], content['warnings'], content['kind']) == (1, 1, 'coco')
    assert content['findings'][0]['code'] == 'box-negative'
    assert content['findings'][0]['examples'] == [12]

    assert run_tool(monkeypatch, tmp_path / 'none.json') == 2
    assert 'none.json does not exist' in capsys.readouterr().err


def test_the_command_says_how_the_text_is_written(coco, tmp_path, monkeypatch, capsys):
    (tmp_path / 'a.json').write_text(json.dumps(coco), encoding='utf-16')
    assert run_tool(monkeypatch, tmp_path / 'a.json') == 1
    assert '[encoding]' in ' '.join(capsys.readouterr().out.split())


def test_the_report_takes_the_place_of_nothing_that_is_read(coco, tmp_path, monkeypatch, capsys):
    ann, picture = tmp_path / 'a.json', tmp_path / 'images' / '1.jpg'
    ann.write_text(json.dumps(coco))
    picture.parent.mkdir()
    Image.new('RGB', (100, 80)).save(picture)
    for target in (ann, picture):
        before = target.read_bytes()
        assert run_tool(monkeypatch, ann, '--images', picture.parent, '--json', target) == 2
        assert capsys.readouterr().err.endswith(
            f'--json {target} is a file that is read; choose another name\n'
        )
        assert target.read_bytes() == before
