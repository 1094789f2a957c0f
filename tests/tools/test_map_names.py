"""tools/map_names.py: rows by hand, and its sentences."""

import json

import pytest

CATEGORIES = [
    {'id': 30, 'name': 'car_(automobile)', 'synonyms': ['car_(automobile)', 'automobile']},
    {'id': 10, 'name': 'sofa', 'synonyms': ['sofa', 'couch']},
    {'id': 20, 'name': 'motorcycle', 'synonyms': ['motorcycle']},
]
NAMES = ['Couches', 'automobile', 'motorbike', 'motorcycle']


@pytest.fixture
def files(tmp_path):
    rows = [
        {'image_id': 5, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'score': 0.5, 'name': name} for name in NAMES
    ]
    (tmp_path / 'results.json').write_text(json.dumps(rows))
    (tmp_path / 'ann.json').write_text(json.dumps({'images': [], 'categories': CATEGORIES}))
    return ['results.json', '--ann', 'ann.json', '--out', 'made/mapped.json']


def test_words_alone(files, in_process, tmp_path):
    code, said = in_process('map_names.py', *files, '--encoder', 'none')
    assert code == 0
    assert said == 'note: 1 detections whose names fit no category were left away\n'
    assert json.loads((tmp_path / 'made/mapped.json').read_text()) == [
        {'image_id': 5, 'category_id': number, 'bbox': [1, 2, 3, 4], 'score': 0.5, 'name': name}
        for number, name in ((10, 'sofa'), (30, 'car_(automobile)'), (20, 'motorcycle'))
    ]


def test_a_real_encoder_and_its_cache(files, in_process, tmp_path):
    options = (*files, '--encoder', 'minilm', '--device', 'cpu', '--cache', 'cache')
    for _ in range(2):
        assert in_process('map_names.py', *options)[0] == 0
        rows = json.loads((tmp_path / 'made/mapped.json').read_text())
        assert [row['category_id'] for row in rows] == [10, 30, 20, 20]
    assert len(list((tmp_path / 'cache').glob('*.safetensors'))) == 1
    assert in_process('map_names.py', *options, '--top-k', 3)[0] == 0
    rows = json.loads((tmp_path / 'made/mapped.json').read_text())
    assert [row['category_id'] for row in rows[::3]] == [10, 30, 20, 20]
    sums = [sum(row['score'] for row in rows[start : start + 3]) for start in (0, 3, 6, 9)]
    assert sums == pytest.approx([0.5] * 4)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ('[{', 'is no valid JSON'),
        ('{"images": []}', 'must be a list of detections'),
        ('[{"image_id": 1, "score": 0.5}]', "detection 0 of results.json has no 'name'"),
    ],
)
def test_other_files_are_refused(files, in_process, tmp_path, content, said):
    (tmp_path / 'results.json').write_text(content)
    code, message = in_process('map_names.py', *files, '--encoder', 'none')
    assert code == 2
    assert said in message
    assert message.count('\n') == 1
    assert not (tmp_path / 'made').exists()


def test_options_that_do_not_go_together(files, in_process, tmp_path):
    code, message = in_process('map_names.py', *files, '--encoder', 'none', '--top-k', 2)
    assert (code, 'need an encoder' in message) == (2, True)
    code, message = in_process('map_names.py', *files, '--encoder', 'minilm', '--template', 'thing')
    assert (code, 'template must hold {} once' in message) == (2, True)
    code, message = in_process('map_names.py', 'no.json', *files[1:])
    assert (code, message) == (2, 'error: result file no.json does not exist; correct the path\n')
