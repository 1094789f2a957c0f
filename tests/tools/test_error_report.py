"""tools/analysis/error_report.py on a small literal set; its page is read as a browser's parser would."""

import base64
import io
import json
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from doc_pages import commands_of
from PIL import Image
from tiny_coco import REPO, load_tool

HOSTILE = '<script>alert("1")</script>'
VOID = {'meta', 'link', 'input', 'br', 'img'}


class Page(HTMLParser):
    """Collects figures, text, tags and attributes; refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.figures, self.words, self.tags = [], {}, [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        given = dict(attributes)
        self.tags.append((name, given))
        if 'data-figure' in given:
            assert given['data-figure'] not in self.figures
            self.figures[given['data-figure']] = given['data-value']
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('script', 'style'):
            self.words.append(data)

    def named(self, name):
        return [given for tag, given in self.tags if tag == name]


def image(number):
    return {'id': number, 'file_name': f'{number}.png', 'width': 100, 'height': 80}


def thing(number, image_id, category, box, **extra):
    area = box[2] * box[3]
    return {'id': number, 'image_id': image_id, 'category_id': category, 'bbox': box, 'area': area, **extra}


def found(image_id, category, box, score):
    return {'image_id': image_id, 'category_id': category, 'bbox': box, 'score': score}


CONTENT = {
    'images': [image(1), image(2), image(3)],
    'categories': [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': HOSTILE}, {'id': 9, 'name': 'bird & co'}],
    'annotations': [
        thing(1, 1, 3, [0, 0, 10, 10]),
        thing(2, 1, 3, [40, 40, 40, 40]),
        thing(3, 1, 7, [60, 0, 20, 20]),
        thing(4, 2, 7, [0, 0, 20, 20]),
        thing(5, 2, 9, [50, 50, 20, 20]),
        thing(6, 3, 3, [0, 0, 50, 50], iscrowd=1),
    ],
}
RESULTS = [
    found(1, 3, [0, 0, 10, 10], 0.9),  # correct
    found(1, 3, [0, 0, 10, 9], 0.8),  # duplicate
    found(1, 3, [60, 0, 20, 20], 0.7),  # confused
    found(1, 3, [40, 40, 40, 13], 0.6),  # localisation
    found(2, 9, [0, 0, 20, 8], 0.5),  # both
    found(2, 7, [80, 0, 20, 20], 0.4),  # background
    found(3, 3, [10, 10, 9, 9], 0.3),  # ignored
    found(2, 9, [50, 50, 20, 20], 0.01),  # correct, but below the score
]
DETECTIONS = {
    'total': 6,
    'correct': 1,
    'duplicate': 1,
    'confused': 1,
    'localisation': 1,
    'both': 1,
    'background': 1,
    'ignored': 1,
}
OBJECTS = {'total': 5, 'found': 1, 'confused': 1, 'localisation': 1, 'missed': 2, 'ignored': 1}


@pytest.fixture
def files(tmp_path):
    (tmp_path / 'ann.json').write_text(json.dumps(CONTENT))
    (tmp_path / 'res.json').write_text(json.dumps(RESULTS))
    (tmp_path / 'images').mkdir()
    Image.fromarray(np.full((80, 100, 3), (200, 30, 60), np.uint8)).save(tmp_path / 'images/1.png')
    return tmp_path


@pytest.fixture
def report(files, capsys):
    """Run the tool; return its page, its figures and what it said."""

    def run(*options):
        arguments = [files / 'res.json', '--ann', files / 'ann.json', '--out', files / 'out/report.html']
        arguments += ['--json', files / 'figures.json', *options]
        load_tool('analysis/error_report.py').main([str(one) for one in arguments])
        text = (files / 'out/report.html').read_text(encoding='utf-8')
        return text, json.loads((files / 'figures.json').read_text()), capsys.readouterr()

    return run


def test_figures_are_the_literal_ones(report):
    _, figures, said = report()
    assert figures['detections'] == DETECTIONS
    assert figures['objects'] == OBJECTS
    assert (figures['images'], figures['recall'], figures['precision']) == (3, 1 / 5, 1 / 6)
    # Curves take all detections: cat 51 recalls at 1, the hostile one none, the bird 101 at 1/2.
    aps = [category['ap'] for category in figures['categories']]
    assert aps == pytest.approx([51 / 101, 0, 1 / 2])
    assert figures['ap'] == pytest.approx((51 / 101 + 1 / 2) / 3)
    assert [figures['by_size'][name]['objects']['total'] for name in ('small', 'medium', 'large')] == [
        4,
        1,
        0,
    ]
    assert [group['objects']['total'] for group in figures['by_frequency'].values()] == [1, 2, 2]
    assert figures['worst_images'] == [{'id': 1, 'cost': 4.1}, {'id': 2, 'cost': 2.9}]
    cells = {(cell['true_id'], cell['detected_id']): cell['count'] for cell in figures['confusion']}
    assert cells == {(3, 3): 1, (7, 3): 1, (3, None): 1, (7, None): 1, (9, None): 1,
                     (None, 3): 2, (None, 7): 1, (None, 9): 1}  # fmt: skip
    assert '5 objects: 1 found, 1 confused, 1 mislocated, 2 missed' in said.out
    assert '6 detections: 1 correct, 5 wrong' in said.out


def test_every_figure_of_the_page_is_that_of_the_file(report):
    text, figures, _ = report()
    shown = Page(text).figures
    assert len(shown) > 100
    for path, value in shown.items():
        expected = figures
        for key in path.split('.'):
            expected = expected[int(key) if isinstance(expected, list) else key]
        assert value == ('' if expected is None else repr(expected)), path
    assert shown['detections.confused'] == '1'
    assert shown['categories.0.detections.duplicate'] == '1'


def test_the_page_fetches_nothing_and_runs_no_foreign_script(report, files):
    text, _, _ = report('--images', str(files / 'images'))
    page = Page(text)
    assert 'http:' not in text.lower()
    assert 'https:' not in text.lower()
    assert page.named('script') == [{}]
    for name, given in page.tags:
        for key in ('src', 'href', 'srcset', 'action'):
            assert given.get(key, '#').startswith(('#', 'data:')), name
        assert not any(key.startswith('on') for key in given)
    assert '@import' not in text
    assert 'url(' not in text
    assert HOSTILE not in text
    assert HOSTILE in page.words
    policy = page.named('meta')[1]['content']
    assert policy.startswith("default-src 'none'; img-src data:")


def test_the_page_says_what_its_pictures_and_tables_show(report):
    text, _, _ = report()
    page = Page(text)
    drawings = page.named('svg')
    assert drawings
    assert all(one['role'] == 'img' and one['aria-label'] for one in drawings)
    assert len(page.named('caption')) == len(page.named('table'))
    assert all('scope' in head for head in page.named('th'))
    identities = {given['id'] for _, given in page.tags if 'id' in given}
    assert {link['href'][1:] for link in page.named('a')} <= identities


def test_pictures_are_in_the_page_and_missing_ones_are_said(report, files):
    text, _, said = report('--images', str(files / 'images'))
    sources = [given['href'] for given in Page(text).named('image')]
    assert len(sources) == 1
    kind, _, data = sources[0].partition(',')
    assert kind == 'data:image/jpeg;base64'
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (100, 80)
        assert np.abs(np.asarray(picture)[40, 50].astype(int) - (200, 30, 60)).max() < 8
    assert '1 of 2 pictures are missing or unreadable' in said.err
    assert '(first: 2.png)' in said.err
    assert '2.png (no picture)' in text
    for words in (
        'missed: bird &amp; co',
        'confused: cat 0.70, true: &lt;script&gt;',
        'both: bird &amp; co 0.50',
    ):
        assert words in text


def test_pictures_outside_of_the_folder_are_not_shown(report, files):
    content = json.loads(json.dumps(CONTENT))
    content['images'][0]['file_name'] = '../secret.png'
    (files / 'ann.json').write_text(json.dumps(content))
    (files / 'images/1.png').rename(files / 'secret.png')
    text, _, said = report('--images', str(files / 'images'))
    assert not Page(text).named('image')
    assert '(first: ../secret.png)' in said.err


def test_an_empty_result_file_is_a_report_too(report, files):
    (files / 'res.json').write_text('[]')
    text, figures, _ = report()
    assert figures['detections']['total'] == 0
    assert figures['precision'] is None
    assert (figures['recall'], figures['ap'], figures['objects']['missed']) == (0, 0, 5)
    assert Page(text).figures['precision'] == ''


def test_1203_categories_make_a_page_of_30(report, files):
    content = {**CONTENT, 'categories': [{'id': n, 'name': f'category {n}'} for n in range(1, 1204)]}
    (files / 'ann.json').write_text(json.dumps(content))
    text, figures, _ = report()
    assert len(text) < 5e6
    assert len(figures['categories']) == 1203
    page = Page(text)
    assert (
        sum('heat' in given.get('class', '') or given.get('class') == 'cell' for given in page.named('rect'))
        == 31**2
    )
    assert sum(path.endswith('.ap') for path in page.figures) == 1203


def cells(page):
    """Sides of the cells of the confusion matrix, pixels."""
    return {
        int(given['width'])
        for given in page.named('rect')
        if 'heat' in given.get('class', '') or given.get('class') == 'cell'
    }


def test_few_categories_make_large_cells(report, files):
    """Three categories and the background are not a stamp on a wide page; thirty still fit."""
    assert cells(Page(report()[0])) == {64}
    content = {**CONTENT, 'categories': [{'id': n, 'name': f'category {n}'} for n in range(1, 31)]}
    (files / 'ann.json').write_text(json.dumps(content))
    assert cells(Page(report()[0])) == {22}


def test_each_category_has_its_own_curve(report):
    page = Page(report()[0])
    labels = [one['aria-label'] for one in page.named('svg') if one.get('class') == 'spark']
    assert labels == [f'Precision over recall of {name}, AP {ap} %' for name, ap in (
        ('cat', 50.5), (HOSTILE, '0.0'), ('bird & co', '50.0'),
    )]  # fmt: skip


def test_results_mapped_to_their_categories_are_taken(report, files):
    named = [{**row, 'name': {3: 'cat', 7: HOSTILE, 9: 'bird & co'}[row['category_id']]} for row in RESULTS]
    (files / 'res.json').write_text(json.dumps(named))
    assert report()[1]['detections'] == DETECTIONS


def test_groups_are_columns_with_shares(report):
    text, _, _ = report()
    table = re.search(r'<caption>Errors by size</caption>.*?</table>', text, flags=re.DOTALL)[0]
    heads = re.findall(r'<th scope="(col|row)"[^>]*>([^<]*)</th>', table)
    assert [name for scope, name in heads if scope == 'col'] == ['small', 'medium', 'large']
    assert [name for scope, name in heads if scope == 'row'][:2] == ['Objects', 'Found']
    assert re.search(r'data-figure="by_size.small.objects.found"[^>]*>1 \(25.0.%\)<', table)
    assert re.search(r'data-figure="by_size.large.objects.found"[^>]*>0<', table)


def test_categories_that_do_not_occur_come_last(report, files):
    empty = {'id': 1, 'name': 'aardvark'}
    (files / 'ann.json').write_text(json.dumps({**CONTENT, 'categories': [empty, *CONTENT['categories']]}))
    text, figures, _ = report()
    assert figures['categories'][0]['name'] == 'aardvark'
    table = text[text.index('id="category-table"') :]
    assert table.index('>cat<') < table.index('>bird &amp; co<') < table.index('>aardvark<')


def test_pages_show_images_whose_size_is_beyond_floats(report, files):
    content = json.loads((files / 'ann.json').read_text())
    for entry in content['images']:
        entry['height'] = 10**400
    (files / 'ann.json').write_text(json.dumps(content))
    # Without a picture and a size, what its objects and detections reach to.
    text, figures, _ = report()
    assert figures['worst_images']
    assert 'viewBox="0 0 ' in text
    assert 'inf' not in ''.join(re.findall(r'viewBox="[^"]*"', text))


def one(**changes):
    """A result file of one detection, with some of its values changed, or left out by None."""
    entry = {**found(1, 3, [1, 2, 3, 4], 1), **changes}
    return json.dumps([{key: value for key, value in entry.items() if value is not None}])


BAD = {
    'no file': (None, (), 'res.json does not exist; correct the path'),
    'no JSON': ('{', (), 'res.json is no valid JSON'),
    'no list': ('{"images": []}', (), "must be a list of detections, but is an object with 'images'"),
    'no box': (one(bbox=None), (), 'detection 0 of {res} has the box None; it must be four'),
    'no number': (one(score='a'), (), "has the score 'a'; it must be a finite number"),
    'no detection': ('[5]', (), 'detection 0 of {res} is 5; an object with image_id'),
    'inverted': (one(bbox=[1, 2, -3, 4]), (), 'has the box [1, 2, -3, 4], of negative size'),
    'image': (one(image_id=8), (), 'is of image 8, which'),
    'category': (one(category_id=0), (), 'has the category_id 0, which'),
    'free name': (
        one(name='dog'),
        (),
        "detection 0 of {res} has the name 'dog', but its category 3 is 'cat'; bring",
    ),
    'iou': ('[]', ('--iou', '2'), '--iou is 2.0; it must be above 0'),
    'score': ('[]', ('--score', 'nan'), '--score is nan; it must be a finite number'),
    'worst': ('[]', ('--worst', '-1'), '--worst is -1'),
    'images': ('[]', ('--images', 'nowhere'), 'image folder nowhere does not exist'),
    'out': ('[]', ('--out', '.'), '--out . is a folder'),
    'json': ('[]', ('--json', '{res}'), '--json {res} is a file that is read; choose another name'),
    'one file': (
        '[]',
        ('--json', '{folder}/images/../report.html'),
        'is written by --out as well; choose another name',
    ),
    'a picture': (
        '[]',
        ('--images', '{folder}/images', '--json', '{folder}/images/1.png'),
        'images/1.png is a file that is read; choose another name',
    ),
}


@pytest.mark.parametrize('name', BAD)
def test_a_users_error_is_one_sentence(files, in_process, name):
    text, options, sentence = BAD[name]
    path = files / 'res.json'
    path.unlink()
    if text is not None:
        path.write_text(text)
    code, said = in_process(
        'analysis/error_report.py',
        path,
        '--ann',
        files / 'ann.json',
        '--out',
        files / 'report.html',
        *(one.format(res=path, folder=files) for one in options),
    )
    assert code == 2
    assert said.startswith('error: ')
    assert said.count('\n') == 1
    assert sentence.format(res=path) in said
    assert not (files / 'report.html').exists()


def test_the_documented_command_runs_as_it_stands(files):
    (line,) = commands_of('docs/error_report.md')
    words = shlex.split(line)
    assert words[:2] == ['python', 'tools/analysis/error_report.py']
    for name in ('work_dirs', 'data/coco/annotations'):
        (files / name).mkdir(parents=True)
    (files / 'tools').symlink_to(REPO / 'tools')
    (files / 'res.json').rename(files / 'work_dirs/results.bbox.json')
    (files / 'ann.json').rename(files / 'data/coco/annotations/instances_val2017.json')
    (files / 'images').rename(files / 'data/coco/val2017')
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert 'written: report.html' in done.stdout
    page = Page((files / 'report.html').read_text())
    figures = json.loads((files / 'figures.json').read_text())
    assert page.figures['objects.total'] == str(figures['objects']['total']) == '5'
    assert len(page.named('image')) == 1
