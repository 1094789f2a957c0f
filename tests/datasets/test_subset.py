"""Stratified parts of annotation files."""

import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools' / 'datasets'))

import subset
from _stratify import stratify

from atss_ext.datasets.annotation_checks import check_annotations
from atss_ext.errors import UserError

# Ten images: all show 0, four show 1, two show 2.
LITERAL = [frozenset(kinds) for kinds in ({0, 1, 2}, {0, 1}, {0, 1, 2}, {0, 1}, *([{0}] * 6))]


def shares(labels, chosen):
    return Counter(label for index in chosen for label in labels[index])


def long_tail(images, categories, seed):
    """Images that show a few of many categories, of which most are rare."""
    chance = random.Random(seed)
    weights = [1 / rank for rank in range(1, categories + 1)]
    return [
        frozenset(chance.choices(range(categories), weights, k=chance.randrange(0, 6))) for _ in range(images)
    ]


@pytest.mark.parametrize('seed', range(8))
def test_half_of_a_literal_set_is_half_of_each_category(seed):
    chosen = stratify(LITERAL, 5, seed)
    assert chosen == sorted(set(chosen))
    assert shares(LITERAL, chosen) == {0: 5, 1: 2, 2: 1}


def test_exactly_as_many_as_asked_for_whatever_the_share():
    labels = long_tail(57, 9, seed=1)
    for count in range(58):
        assert len(set(stratify(labels, count, seed=0))) == count
    assert stratify([], 0, seed=0) == []


def test_shares_are_kept_far_better_than_by_chance():
    labels = long_tail(600, 60, seed=2)
    everything, wanted = shares(labels, range(600)), 150

    def error(chosen):
        kept = shares(labels, chosen)
        return sum(abs(kept[label] - count * wanted / 600) for label, count in everything.items())

    drawn = [error(random.Random(seed).sample(range(600), wanted)) for seed in range(20)]
    chosen = [error(stratify(labels, wanted, seed)) for seed in range(20)]
    assert max(chosen) < 0.4 * sum(drawn) / 20


def test_categories_of_one_image_are_not_all_left():
    """A tenth of the images has about a tenth of a hundred such categories, whatever each one gets."""
    labels = [frozenset({0, 1 + index}) if index < 100 else frozenset({0}) for index in range(400)]
    rare = [len(shares(labels, stratify(labels, 40, seed))) - 1 for seed in range(10)]
    assert all(5 <= count <= 16 for count in rare)
    assert 8 <= sum(rare) / 10 <= 12


def test_images_that_show_nothing_get_their_share_too():
    labels = [frozenset({0})] * 40 + [frozenset()] * 60
    assert shares(labels, stratify(labels, 50, seed=3)) == {0: 20}


def test_the_seed_alone_decides():
    labels = long_tail(200, 20, seed=4)
    assert stratify(labels, 40, seed=1) == stratify(labels, 40, seed=1)
    assert stratify(labels, 40, seed=1) != stratify(labels, 40, seed=2)


def test_a_minimum_reaches_rare_categories():
    labels = long_tail(600, 60, seed=2)
    everything = shares(labels, range(600))
    # With 62 images it is just possible, for most of the seeds by exchanging images alone.
    for seed in range(5):
        without, kept = (shares(labels, stratify(labels, 62, seed, minimum)) for minimum in (0, 2))
        assert any(without[label] < min(2, count) for label, count in everything.items())
        assert all(kept[label] >= min(2, count) for label, count in everything.items())


@pytest.fixture
def file(tmp_path):
    """LITERAL as a file, with fields that are nobody's business, ids out of order, and a category unused."""
    images = [
        {
            'id': 100 - i,
            'file_name': f'{i}.jpg',
            'width': 9,
            'height': 9,
            'neg_category_ids': [i],
            'x': {'y': i},
        }
        for i in range(10)
    ]
    annotations = [
        {'id': 1000 + 10 * i + c, 'image_id': 100 - i, 'category_id': 7 + c, 'bbox': [1, 2, 3, 4], 'area': 12,
         'iscrowd': 0, 'segmentation': [[1, 2, 4, 2, 4, 6]], 'z': None}
        for i, kinds in enumerate(LITERAL) for c in sorted(kinds)
    ]  # fmt: skip
    categories = [{'id': 7 + c, 'name': name, 'frequency': 'r'} for c, name in enumerate('abcd')]
    content = {
        'info': {'year': 2017}, 'images': images, 'annotations': annotations, 'categories': categories,
        'licenses': [1, 2],
    }  # fmt: skip
    path = tmp_path / 'all.json'
    path.write_text(json.dumps(content))
    return path


def run(file, *options):
    out = file.with_name('part.json')
    subset.main([str(file), str(out), *map(str, options)])
    return json.loads(out.read_text()), json.loads(file.with_name('part.json.report.json').read_text())


def test_every_field_and_the_order_stay(file, capsys):
    whole = json.loads(file.read_text())
    part, report = run(file, '--fraction', 0.5)
    ids = {image['id'] for image in part['images']}
    assert len(ids) == 5
    assert list(part) == list(whole)
    assert part['images'] == [image for image in whole['images'] if image['id'] in ids]
    assert part['annotations'] == [entry for entry in whole['annotations'] if entry['image_id'] in ids]
    for key in ('info', 'licenses', 'categories'):
        assert part[key] == whole[key]
    assert len(part['annotations']) == 5 + 2 + 1
    assert [(entry['id'], entry['images_before'], entry['images']) for entry in report['categories']] == [
        (7, 10, 5), (8, 4, 2), (9, 2, 1), (10, 0, 0),
    ]  # fmt: skip
    assert (report['without_images'], report['below_minimum']) == ([], [])
    assert '5 of 10 images and 8 of 16 annotations' in capsys.readouterr().out
    again, _ = run(file, '--images', 5)
    assert again == part
    assert (
        check_annotations({key: part[key] for key in ('images', 'annotations', 'categories')}, 'coco').errors
        == 0
    )


def test_the_rest_is_what_was_not_taken(file, tmp_path):
    whole, rest_file = json.loads(file.read_text()), tmp_path / 'rest.json'
    part, _ = run(file, '--fraction', 0.2, '--rest', rest_file)
    rest = json.loads(rest_file.read_text())
    assert (len(part['images']), len(rest['images'])) == (2, 8)
    for key in ('images', 'annotations'):
        ids = sorted(one['id'] for one in part[key] + rest[key])
        assert ids == sorted(one['id'] for one in whole[key])
    assert rest['images'] == [image for image in whole['images'] if image not in part['images']]
    assert rest['categories'] == whole['categories']
    with pytest.raises(UserError, match='rest'):
        run(file, '--fraction', 0.2, '--rest', file)


def test_categories_that_got_none_are_said(file, capsys):
    part, report = run(file, '--images', 1, '--min-per-category', 2)
    seen = {entry['category_id'] for entry in part['annotations']}
    assert report['without_images'] == [number for number in (7, 8, 9) if number not in seen]
    assert report['below_minimum'] == [7, 8, 9]  # 10 has none to give
    assert '3 categories got fewer than 2: a, b, c' in capsys.readouterr().out


FAULTS = {
    'too many': (['--images', 11], '--images is 11; .* has 1 to 10 images'),
    'none': (['--images', 0], '--images is 0'),
    'a fraction of two': (['--fraction', 2], '--fraction is 2; it has to be above 0 and up to 1'),
    'a negative minimum': (['--images', 1, '--min-per-category', -1], '--min-per-category is -1'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_bad_options(file, fault):
    options, expected = FAULTS[fault]
    with pytest.raises(UserError, match=expected):
        run(file, *options)
    assert not file.with_name('part.json').exists()


def test_where_nothing_can_be_written_nothing_is_read(file, monkeypatch):
    """Neither the part nor its report takes the place of the whole, or of a folder or a device."""
    before = file.read_bytes()
    whole = file.rename(file.with_name('part.json.report.json'))
    monkeypatch.setattr(subset, 'read_annotations', None)
    for out, sentence in (
        (whole, 'out {} is a file that is read; choose another name'),
        (
            whole.with_name('part.json'),
            'the report {}.report.json is a file that is read; choose another name',
        ),
        (whole.parent, 'out {} is a folder; name a file'),
        ('/dev/null', 'out {} is no regular file; choose another name'),
        ('/dev/null/x', 'out {} cannot be written, because /dev/null is no folder; choose another place'),
    ):
        with pytest.raises(UserError) as caught:
            subset.main([str(whole), str(out), '--images', '2'])
        assert str(caught.value) == sentence.format(out)
    assert whole.read_bytes() == before


def test_a_list_of_images_has_parts_too(file):
    content = json.loads(file.read_text())
    del content['annotations']
    file.write_text(json.dumps(content))
    assert len(run(file, '--images', 2)[0]['images']) == 2


def test_bad_files(file):
    whole = json.loads(file.read_text())
    whole['annotations'][0]['image_id'] = 5
    file.write_text(json.dumps(whole))
    with pytest.raises(
        UserError, match=r"has faults \(.*image_id is not among 'images'.*, as at 1000\); .*check_ann"
    ):
        run(file, '--images', 2)
