"""The characters each token stands for; some tokens are less than a character, some are none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_vlms import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers

from atss_ext.vlsam.vlm.decoding import decode

BYTES = byte_tokenizer()
TEXTS = (
    'a red circle, two blue squares.',
    'Ein Café mit Straßenlärm: „schön“!',
    '一只猫和一条狗',
    'собака и кошка',
    '🐈 and 👩‍👩‍👧 and e\u0301',
    ' leading, trailing \n and\ttabs ',
    '',
)


def sentencepiece_tokenizer():
    """Like Llama's: pieces that begin with a space, and bytes for what has no piece."""
    from transformers import PreTrainedTokenizerFast

    pieces = [
        '<unk>',
        '<s>',
        '</s>',
        *(f'<0x{byte:02X}>' for byte in range(256)),
        '▁a',
        '▁dog',
        '▁',
        'cat',
        '.',
    ]
    tokenizer = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token='<unk>', byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token='<s>', eos_token='</s>', unk_token='<unk>'
    )


SENTENCEPIECE = sentencepiece_tokenizer()


def pieces(tokenizer, token_ids) -> list[str]:
    """The pieces, after the rules every answer must keep were checked."""
    text, spans = decode(tokenizer, token_ids)
    assert text == tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert len(spans) == len(token_ids)
    assert [start for start, _ in spans] == ([0] + [end for _, end in spans])[: len(spans)]
    assert all(start <= end for start, end in spans)
    found = [text[start:end] for start, end in spans]
    assert ''.join(found) == text
    return found


@pytest.mark.parametrize('text', TEXTS)
def test_pieces_join_to_the_text(text):
    ids = BYTES.encode(text, add_special_tokens=False)
    assert ''.join(pieces(BYTES, ids)) == text


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, len(BYTES) - 1), max_size=40))
def test_any_bytes(token_ids):
    """Bytes that are no UTF-8, special tokens, and all between."""
    pieces(BYTES, token_ids)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, len(SENTENCEPIECE) - 1), max_size=40))
def test_any_sentencepieces(token_ids):
    pieces(SENTENCEPIECE, token_ids)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=30))
def test_any_text(text):
    assert ''.join(pieces(BYTES, BYTES.encode(text, add_special_tokens=False))) == text


def test_a_character_belongs_to_the_token_that_completes_it():
    ids = [BYTES.encode(char, add_special_tokens=False) for char in ('a', '猫', 'é')]
    assert [len(group) for group in ids] == [1, 3, 2]
    assert pieces(BYTES, [token for group in ids for token in group]) == ['a', '', '', '猫', '', 'é']


def test_bytes_of_a_fallback_and_a_dropped_space():
    name = SENTENCEPIECE.convert_tokens_to_ids
    cat = [name(f'<0x{byte:02X}>') for byte in '猫'.encode()]
    ids = [name('<s>'), name('▁a'), name('▁dog'), *cat, name('.'), name('</s>')]
    assert pieces(SENTENCEPIECE, ids) == ['', 'a', ' dog', '', '', '猫', '.', '']
    assert decode(SENTENCEPIECE, ids)[1][2] == (1, 5)


def test_bytes_that_take_a_character_back():
    """The decoder shows a run of bytes as replacement characters until all of it is valid."""
    ids = [SENTENCEPIECE.convert_tokens_to_ids(f'<0x{byte:02X}>') for byte in 'A\ufffd'.encode()]
    assert [SENTENCEPIECE.decode(ids[:count]) for count in (1, 2)] == ['A', '\ufffd\ufffd']
    assert pieces(SENTENCEPIECE, ids) == ['A', '', '', '\ufffd']


def test_special_tokens_have_no_characters():
    word = BYTES.encode('dog', add_special_tokens=False)
    special = BYTES.convert_tokens_to_ids('<|im_end|>')
    found = pieces(BYTES, [special, *word, special, special])
    assert (found[0], ''.join(found[1:-2]), found[-2:]) == ('', 'dog', ['', ''])


def test_a_character_that_is_never_completed():
    """The replacement character the decoder shows belongs to the token it comes from."""
    ids = BYTES.encode('猫', add_special_tokens=False)[:2]
    word = BYTES.encode('a', add_special_tokens=False)
    assert pieces(BYTES, ids + word) == ['\ufffd', '', 'a']
    assert decode(BYTES, []) == ('', [])
