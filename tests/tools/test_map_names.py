"""tools/map_names.py: rows by hand, and its sentences."""

import json
import socket
import time

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
        (
            '[{"name": "a", "score": "x"}]',
            "detection 0 of results.json has the score 'x'; it must be a finite",
        ),
        ('[{"name": "a", "score": null}]', 'has the score None; it must be a finite number'),
        (f'[{{"name": "a", "score": {10**400}}}]', 'has the score 1000'),
        ('[{"name": "a", "score": true}]', 'has the score True; it must be a finite number'),
        ('[{"name": "a", "score": NaN}]', 'has the score nan; it must be a finite number'),
    ],
)
def test_other_files_are_refused(files, in_process, tmp_path, content, said):
    (tmp_path / 'results.json').write_text(content)
    code, message = in_process('map_names.py', *files, '--encoder', 'none')
    assert code == 2
    assert said in message
    assert message.count('\n') == 1
    assert not (tmp_path / 'made').exists()


def test_half_a_surrogate_pair_is_no_bug(files, in_process, tmp_path):
    (tmp_path / 'results.json').write_text('[{"image_id": 1, "score": 0.5, "name": "sofa \\ud800"}]')
    code, said = in_process('map_names.py', *files, '--encoder', 'minilm', '--device', 'cpu')
    assert code == 0, said
    assert [row['category_id'] for row in json.loads((tmp_path / 'made/mapped.json').read_text())] == [10]


@pytest.mark.parametrize(
    ('out', 'said'),
    [
        ('results.json', '--out results.json is a file that is read; choose another name'),
        ('ann.json', '--out ann.json is a file that is read; choose another name'),
        ('.', '--out . is a folder; name a file'),
        ('ann.json/x.json', '--out ann.json/x.json cannot be written, because '),
    ],
)
def test_what_is_read_stays(files, in_process, tmp_path, out, said):
    before = [(tmp_path / name).read_bytes() for name in ('results.json', 'ann.json')]
    code, message = in_process('map_names.py', *files[:-1], out, '--encoder', 'none')
    assert (code, message.count('\n')) == (2, 1)
    assert said in message
    assert [(tmp_path / name).read_bytes() for name in ('results.json', 'ann.json')] == before


def test_an_encoder_that_cannot_be_fetched_is_one_sentence_at_once(files, in_process, monkeypatch):
    from huggingface_hub import constants

    with socket.socket() as closed:  # bound, but not listening: whoever connects is refused
        closed.bind(('127.0.0.1', 0))
        monkeypatch.setattr(constants, 'ENDPOINT', f'http://127.0.0.1:{closed.getsockname()[1]}')
        start = time.perf_counter()
        code, message = in_process('map_names.py', *files, '--model', 'nobody/nothing', '--device', 'cpu')
    assert (code, message.count('\n')) == (2, 1)
    assert 'the tokenizer nobody/nothing is no folder here, and could not be fetched' in message
    # The hub's own library tries five times for each file, which takes a minute.
    assert time.perf_counter() - start < 15


def test_options_that_do_not_go_together(files, in_process, tmp_path):
    code, message = in_process('map_names.py', *files, '--encoder', 'none', '--top-k', 2)
    assert (code, 'need an encoder' in message) == (2, True)
    code, message = in_process('map_names.py', *files, '--encoder', 'minilm', '--template', 'thing')
    assert (code, 'template must hold {} once' in message) == (2, True)
    code, message = in_process('map_names.py', *files, '--encoder', 'minilm', '--threshold', 'nan')
    assert (code, 'threshold must be a cosine, in -1 to 1, but is nan' in message) == (2, True)
    code, message = in_process('map_names.py', 'no.json', *files[1:])
    assert (code, message) == (2, 'error: result file no.json does not exist; correct the path\n')
