"""Names from what vision-language models write, and back to tokens and rows."""

import re
import sys
import unicodedata
from collections import Counter, deque
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset, LVISV1Dataset

from atss_ext.datasets.shapes import ShapesSpec
from atss_ext.datasets.shapes_drawing import OUTLINES, PALETTE, PATTERNS
from atss_ext.vlsam.names import (
    ROW_RULES,
    Mention,
    NameOptions,
    find_names,
    parse,
    row_weights,
    singular,
    token_range,
)
from atss_ext.vlsam.protocols import VlsamError

# Answers of the kinds that vision-language models give; behind "=>" the names in them.
ANSWERS = (
    (Path(__file__).parent / 'vlm_answers.txt')
    .read_text(encoding='utf-8')
    .removesuffix('\n')
    .split('\n---\n')
)


@pytest.mark.parametrize('answer', ANSWERS)
def test_names_of_answers(answer):
    text, names = answer.rsplit('\n=>', 1)
    expected = names.strip().split(' | ') if names else []
    assert [mention.name for mention in find_names(text)] == expected


@pytest.mark.parametrize('text', ['', ' \n\t', '...!?', '*', '123', '\ud800', '\x00'])
def test_nothing_is_named_by_nothing(text):
    assert find_names(text) == []


def test_mentions_stand_where_their_words_are():
    text = 'The image shows two red cars,\na **bottle** of water and "a black and white cat".'
    spans = {m.name: text[m.start : m.end] for m in find_names(text)}
    assert spans == {
        'red car': 'red cars',
        'bottle of water': 'bottle** of water',
        'black and white cat': 'black and white cat',
    }


def test_colours_are_left_out_on_demand():
    text = 'a large light blue car, a black and white cat, an orange, a striped red-and-white tent, red wine'
    mentions = find_names(text, NameOptions(keep_colours=False))
    assert [m.name for m in mentions] == ['large car', 'cat', 'orange', 'striped tent', 'wine']
    assert text[mentions[1].start : mentions[1].end] == 'cat'


def test_duplicates():
    text = 'dog, cat, dogs, a dog, bird, dog, dog, cat'
    kept = [m.name for m in find_names(text)]
    assert kept == ['dog', 'cat', 'dog', 'dog', 'bird', 'dog', 'cat']
    merged = find_names(text, NameOptions(duplicates='merge'))
    assert merged == [Mention('dog', 0, 3), Mention('cat', 5, 8), Mention('bird', 23, 27)]
    assert len(find_names(text, NameOptions(max_mentions=2))) == 5
    assert [m.name for m in find_names(text, NameOptions(max_names=2))] == ['dog', 'cat']


def test_ignored_names():
    text = 'a blue sky, a skyscraper, grass and a sky'
    names = [m.name for m in find_names(text, NameOptions(ignore=['sky', 'grass']))]
    assert names == ['skyscraper']


def test_a_parser_of_the_users():
    def capitals(text: str) -> list[Mention]:
        return [Mention(m[0].lower(), *m.span()) for m in re.finditer('[A-Z]+', text)]

    text = 'the DOG saw the DOG and a CAT'
    options = NameOptions(parser=capitals, duplicates='merge')
    assert find_names(text, options) == [Mention('dog', 4, 7), Mention('cat', 26, 29)]
    for wrong in (Mention('dog', 5, 40), Mention('dog', 3, 3), Mention('dog', -1, 3), Mention('', 0, 3)):
        with pytest.raises(VlsamError, match='within the text'):
            find_names(text, NameOptions(parser=lambda _, wrong=wrong: [wrong]))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'duplicates': 'drop'}, "'drop'"),
        ({'max_mentions': 0}, 'max_mentions'),
        ({'max_names': 0}, 'max_names'),
        ({'ignore': 'sky'}, "'sky'"),
    ],
)
def test_name_options_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        NameOptions(**settings)


PLURALS = """
people:person bicycles:bicycle cars:car airplanes:airplane buses:bus trucks:truck benches:bench birds:bird
sheep:sheep zebras:zebra giraffes:giraffe umbrellas:umbrella ties:tie frisbees:frisbee skis:ski
gloves:glove rackets:racket knives:knife sandwiches:sandwich oranges:orange pizzas:pizza donuts:donut
couches:couch toilets:toilet tvs:tv mice:mouse microwaves:microwave vases:vase scissors:scissors
toothbrushes:toothbrush children:child men:man women:woman geese:goose wolves:wolf calves:calf loaves:loaf
leaves:leaf shelves:shelf scarves:scarf hooves:hoof lives:life wives:wife elves:elf thieves:thief
potatoes:potato tomatoes:tomato mangoes:mango heroes:hero canoes:canoe shoes:shoe toes:toe photos:photo
pianos:piano kangaroos:kangaroo cherries:cherry strawberries:strawberry puppies:puppy ponies:pony
butterflies:butterfly candies:candy cookies:cookie brownies:brownie pies:pie movies:movie
smoothies:smoothie hoodies:hoodie zombies:zombie monkeys:monkey keys:key trays:tray toys:toy
jerseys:jersey boxes:box foxes:fox axes:axe watches:watch peaches:peach mustaches:mustache quiches:quiche
headaches:headache dishes:dish bushes:bush dresses:dress glasses:glasses sunglasses:sunglasses
classes:class crosses:cross waitresses:waitress houses:house blouses:blouse greenhouses:greenhouse
nurses:nurse roses:rose noses:nose hoses:hose cases:case lenses:lens gases:gas canvases:canvas
cactuses:cactus cacti:cactus octopuses:octopus walruses:walrus viruses:virus irises:iris
hippopotamuses:hippopotamus tortoises:tortoise cruises:cruise purses:purse sausages:sausage bridges:bridge
faces:face slices:slice prizes:prize quizzes:quiz olives:olive stoves:stove waves:wave sleeves:sleeve
doves:dove eyes:eye feet:foot teeth:tooth oxen:ox dice:die firemen:fireman snowmen:snowman
policewomen:policewoman salespeople:salesperson grandchildren:grandchild deer:deer goldfish:goldfish
aircraft:aircraft pants:pants jeans:jeans shorts:shorts trousers:trousers tongs:tongs pliers:pliers
binoculars:binoculars goggles:goggles headphones:headphones pajamas:pajamas tights:tights shears:shears
clothes:clothes taxis:taxi kiwis:kiwi zucchinis:zucchini bikinis:bikini t-shirts:t-shirt
walkie-talkies:walkie-talkie grass:grass glass:glass bus:bus gas:gas lens:lens canvas:canvas cactus:cactus
tennis:tennis iris:iris mattress:mattress compass:compass asparagus:asparagus hummus:hummus
thermos:thermos rhinoceros:rhinoceros walrus:walrus octopus:octopus christmas:christmas person:person
woman:woman horse:horse vase:vase
"""


def test_singulars():
    pairs = dict(pair.split(':') for pair in PLURALS.split())
    assert {plural: singular(plural) for plural in pairs} == pairs
    # The singular of a singular is itself.
    assert {word: singular(word) for word in pairs.values()} == {word: word for word in pairs.values()}


def test_singulars_by_what_stands_around():
    assert singular('glasses', before='wine') == 'glass'
    assert singular('glasses', contents=True) == 'glass'
    assert singular('häuser') == 'häuser'


def category_names(dataset) -> list[str]:
    names = [re.sub(r'\(.*?\)', ' ', name).replace('_', ' ') for name in dataset.METAINFO['classes']]
    return sorted({' '.join(name.lower().split()) for name in names})


# Plurals, and a material.
ODD = {'skis': ['ski'], 'brussels sprouts': ['brussels sprout'], 'leather': []}


@pytest.mark.parametrize('dataset', [CocoDataset, LVISV1Dataset])
@pytest.mark.parametrize('frame', ['{}', 'There is a {} and a tree.', 'the {} is on the left'])
def test_every_category_is_a_name(dataset, frame):
    found = {
        name: [m.name for m in find_names(frame.format(name)) if m.name != 'tree']
        for name in category_names(dataset)
    }
    assert len(found) > 79
    assert {name: names for name, names in found.items() if names != [name]} == {
        name: names for name, names in ODD.items() if name in found
    }


def test_every_name_of_the_shapes_world():
    world = ShapesSpec(colours=tuple(PALETTE), shapes=tuple(OUTLINES), patterns=tuple(PATTERNS))
    names = list(world.category_names)
    assert len(names) > 500
    for joint in (', ', '\n', ' and '):
        options = NameOptions(max_names=10**6)
        assert [m.name for m in find_names(joint.join(f'a {name}' for name in names), options)] == names
        assert [m.name for m in find_names(joint.join(names), options)] == names


# Letters of many scripts, marks, quotes, tags, digits and English to make phrases of.
WORDS = """a the two no not without of and red blue dog dogs people people's bottle water riding parked is at
    can camera glasses"""
MARKS = """- , . ; : ( ) [ ] { } * _ ** # ' " <ref> </ref> "STOP" says \N{RIGHT SINGLE QUOTATION MARK}
    \N{EN DASH}
    \N{IDEOGRAPHIC FULL STOP} \N{IDEOGRAPHIC COMMA} \N{DOG} \u200d \u0301 \ud800 \xad ß İ ﬁ ½ ﷺ 猫"""
PIECES = st.one_of(st.text(max_size=8), st.sampled_from([*WORDS.split(), *MARKS.split(), '\n']))


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=40), st.booleans(), st.booleans())
def test_any_text_is_safe(pieces, spaced, keep_colours):
    text = (' ' if spaced else '').join(pieces)
    mentions = list(parse(text, keep_colours))
    assert mentions == sorted(mentions, key=lambda m: m.start)
    assert all(one.end <= other.start for one, other in pairwise(mentions))
    for name, start, end in mentions:
        assert 0 <= start < end <= len(text)
        assert name == name.strip() == name.lower() != ''
        assert any(char.isalpha() for char in name)
        # Every word of the name stands there, but for its number.
        source = unicodedata.normalize(
            'NFKC', text[start:end].replace('\N{RIGHT SINGLE QUOTATION MARK}', "'")
        ).lower()
        source = ''.join(c for c in source if unicodedata.category(c) != 'Cf')
        for word in name.split():
            plain = ''.join(c for c in word if unicodedata.category(c) != 'Cf')
            assert plain in source or plain[:2] in source or plain in ('person', 'mouse')
    found = find_names(text, NameOptions(keep_colours=keep_colours, max_mentions=2, max_names=5))
    assert len(found) <= 5
    assert max(Counter(m.name for m in found).values(), default=0) <= 2
    assert set(found) <= set(mentions)


RUNAWAY = {
    'a list without end': 'dog, ',
    'a word without end': 'dog',
    'words without commas': 'dog ',
    'two words in turn': 'cat dog ',
    'lines': '- a red car\n',
    'sentences': 'There is a man riding a horse. ',
    'brackets': '[{(<',
    'tags': '<a',
    'writing': 'says "',
    'quotes': '"\'',
    'hyphens': 'a-',
    'apostrophes': "s' ",
    'marks': 'e\u0301\u0301',
    'negations': 'no ',
    'of': 'bottle of ',
    'colours': 'red and ',
    'digits': '1. ',
    'spaces': '  \n',
    'emoji': '🐕',
    'ideographs': '猫',
}


def count_calls(text: str) -> int:
    """Python's and C's functions called to parse a text."""
    calls = 0

    def count(frame, event, argument) -> None:
        nonlocal calls
        calls += event in ('call', 'c_call')

    sys.setprofile(count)
    try:
        deque(parse(text), maxlen=0)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize('kind', RUNAWAY)
def test_runaway_answers_are_bounded_and_linear(kind):
    def repeated(length: int) -> str:
        return (RUNAWAY[kind] * (length // len(RUNAWAY[kind]) + 1))[:length]

    assert count_calls(repeated(8_000)) <= 4.1 * count_calls(repeated(2_000)) + 500
    found = find_names(repeated(200_000))
    assert len(found) <= 4 * len({mention.name for mention in found}) <= 100
    assert all(len(mention.name) < 500 for mention in found)


def test_the_names_before_a_runaway_end_are_kept():
    names = [m.name for m in find_names('a red car, a dog, ' + 'cat, ' * 40_000 + 'a bird')]
    assert names == ['red car', 'dog', 'cat', 'cat', 'cat', 'cat', 'bird']
    assert [m.name for m in find_names('a dog, ' + 'x' * 200_000 + ' cat')] == ['dog', 'cat']


# "A dog, 猫": the cat of three byte tokens, the last of which has the character; then the end of the answer.
SPANS = [(0, 1), (1, 5), (5, 6), (6, 7), (7, 7), (7, 7), (7, 8), (8, 8)]


@pytest.mark.parametrize(
    ('start', 'end', 'expected'),
    [
        (2, 5, [1]),  # " dog" with the space before it
        (0, 5, [0, 1]),
        (3, 4, [1]),
        (0, 6, [0, 1, 2]),
        (7, 8, [4, 5, 6]),
        (6, 8, [3, 4, 5, 6]),
        (5, 8, [2, 3, 4, 5, 6]),
    ],
)
def test_token_range(start, end, expected):
    assert list(token_range(Mention('name', start, end), SPANS)) == expected


def test_tokens_that_share_a_character():
    """As a tokenizer tells that gives each byte of a character the whole of it."""
    spans = [(0, 1), (1, 2), (1, 2), (1, 2), (2, 4)]
    assert list(token_range(Mention('猫', 1, 2), spans)) == [1, 2, 3]
    assert list(token_range(Mention('x', 0, 1), spans)) == [0]
    assert list(token_range(Mention('ab', 2, 4), spans)) == [4]


@st.composite
def tokenised(draw):
    """Spans as a byte-level tokenizer makes them, and a part of the text."""
    widths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=30))
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    spans = [(end - width, end) for end, width in zip(ends, widths, strict=True)]
    start = draw(st.integers(0, max(ends[-1] - 1, 0)))
    return spans, start, draw(st.integers(start + 1, max(ends[-1], start + 1)))


@settings(max_examples=300, deadline=None)
@given(tokenised())
def test_token_range_against_a_search(case):
    spans, start, end = case
    overlapping = [i for i, (s, e) in enumerate(spans) if s < end and e > start and s < e]
    empty = [i for i, (s, e) in enumerate(spans) if s == e and start <= s < end]
    expected = sorted(overlapping + empty)
    if not overlapping:  # a text without characters
        return
    assert list(token_range(Mention('name', start, end), spans)) == expected


@pytest.mark.parametrize(
    ('start', 'end', 'spans'), [(9, 12, SPANS), (8, 9, SPANS), (-4, 0, SPANS), (3, 3, SPANS), (0, 3, [])]
)
def test_names_outside_of_the_answer_are_refused(start, end, spans):
    with pytest.raises(VlsamError, match='same answer') as error:
        token_range(Mention('dog', start, end), spans)
    assert f'{start} to {end}' in str(error.value)
    with pytest.raises(VlsamError):
        row_weights([Mention('dog', start, end)], spans, 4, 20)


def test_row_weights_of_every_rule():
    mentions = [Mention('hot dog', 2, 8), Mention('猫', 8, 9)]
    spans = [(0, 1), (1, 5), (5, 8), (8, 9)]
    quarter = 1 / 4
    expected = {
        'generating-first': [[0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]],
        'generating': [[0, 0, 0, 0.5, 0.5, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]],
        'tokens': [[0, 0, 0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0]],
        'first': [[0, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0]],
        'last': [[0, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1, 0]],
        'mean': [[0, 0, 0, quarter, 0.5, quarter, 0, 0], [0, 0, 0, 0, 0, 0.5, 0.5, 0]],
    }
    assert set(expected) == set(ROW_RULES)
    for rule, rows in expected.items():
        weights = row_weights(mentions, spans, 3, 8, rule)
        assert weights.dtype == torch.float32
        assert torch.equal(weights, torch.tensor(rows, dtype=torch.float32))
    assert torch.equal(row_weights(mentions, spans, 3, 8), torch.tensor(expected['generating']).float())


def test_row_weights_of_no_names():
    assert row_weights([], [(0, 3)], 3, 8).shape == (0, 8)


def test_row_weights_refuse_what_does_not_fit():
    mention, spans = Mention('dog', 0, 3), [(0, 3), (3, 4)]
    with pytest.raises(ValueError, match="'middle'"):
        row_weights([mention], spans, 3, 8, 'middle')
    for start in (0, 7):  # nothing generates the first token; the last token lies beyond the end
        with pytest.raises(VlsamError, match='does not fit'):
            row_weights([mention], spans, start, 8)
    assert row_weights([mention], spans, 1, 3).tolist() == [[1, 0, 0]]
