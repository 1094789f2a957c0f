"""The categories of an annotation file, and free names that are theirs word for word."""

import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from atss_ext.datasets.checks import DataError, read_coco
from atss_ext.evaluation.annotations import place_of_name, take_categories
from atss_ext.vlsam.names.plurals import singular

_PARENTHESES = re.compile(r'\([^)]*\)?')
_ARTICLES = ('a', 'an', 'the')


class Categories(NamedTuple):
    """The C categories of a file, in its order.

    Attributes:
        ids: the file's.
        names: as written, such as 'bow_(weapon)'.
        synonyms: of each, without its name; LVIS alone has some.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]


def read_categories(ann_file: str | os.PathLike[str]) -> Categories:
    """Read the categories of a COCO, LVIS or CODA file.

    Raises:
        DataError: the file cannot be read, has no categories with names, two of one name, or synonyms that
            are no texts.
    """
    entries = take_categories(read_coco(ann_file), str(ann_file))
    names = tuple(entry['name'] for entry in entries)
    if not names or not all(names):
        raise DataError(f'{ann_file} has no categories with id and name; name another annotation file')
    place_of_name(names, str(ann_file))
    synonyms = tuple(_synonyms(entry, ann_file) for entry in entries)
    return Categories(tuple(entry['id'] for entry in entries), names, synonyms)


def _synonyms(entry: Mapping[str, Any], ann_file: str | os.PathLike[str]) -> tuple[str, ...]:
    """Of a category, without its name."""
    listed = entry.get('synonyms') or []
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise DataError(
            f'category {entry["id"]} of {ann_file} has the synonyms {reprlib.repr(listed)}, which must be a '
            'list of texts; correct them, or leave them away'
        )
    return tuple(text for text in listed if text != entry['name'])


def readable(name: str) -> str:
    """A name as a text encoder is asked for it: 'bow_(weapon)' is 'bow (weapon)'."""
    return ' '.join(name.replace('_', ' ').lower().split())


def plain(name: str) -> str:
    """Words alone: lower case, without article, underscores, hyphens and the signs of parentheses."""
    words = re.sub(r'[\s_()\[\]{},.;:!?"/-]+', ' ', name.lower()).split()
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return ' '.join(words)


def in_singular(words: str) -> str:
    """The singular of a name of plain words."""
    *others, last = words.split() or ['']
    return ' '.join([*others, singular(last, others[-1] if others else '')])


class NameIndex:
    """Finds by words: as they stand, then without the parentheses of a category, then in the singular.

    Args:
        texts: what each of C categories is called.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._stages: tuple[dict[str, list[int]], ...] = ({}, {}, {}, {})
        for place, names in enumerate(texts):
            for name in names:
                whole, short = plain(name), plain(_PARENTHESES.sub(' ', name))
                keys = (whole, short, in_singular(whole), in_singular(short))
                for stage, key in zip(self._stages, keys, strict=True):
                    places = stage.setdefault(key, [])
                    if key and place not in places:
                        places.append(place)

    def find(self, name: str) -> list[int]:
        """The categories a name fits, in their order; several for 'bow', none for most names."""
        words = plain(name)
        keys = (words, words, in_singular(words), in_singular(words))
        for stage, key in zip(self._stages, keys, strict=True):
            if stage.get(key):
                return stage[key]
        return []
