"""The names of things in a vision-language model's answer."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from atss_ext.vlsam.names.phrases import Mention, parse
from atss_ext.vlsam.protocols import VlsamError

_DUPLICATES = ('separate', 'merge')
# Behind a name that a text breaks off in: a hyphen, half of a character, the first letter of another word.
_BROKEN_OFF = re.compile(
    '[-_\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{REPLACEMENT CHARACTER}]*[ \t\xa0]*[^\\W\\d_]?'
)


@dataclass(frozen=True)
class NameOptions:
    """How names are read from an answer.

    VL-SAM parses object names from the answer in the way of Tag2Text: by noun phrases. The rest is ours.

    Args:
        keep_colours: a colour belongs to the name ("red circle"); otherwise it is left out ("circle").
        duplicates: what becomes of a name that occurs again. 'separate': every mention is an object of its
            own, whose attention may lie elsewhere ("a red circle, a blue square, a red circle"), and equal
            results are merged after segmentation. 'merge': the first mention speaks for all.
        max_mentions: mentions of one name taken at most, the first ones.
        max_names: mentions taken at most, the first ones: a model that runs on costs no more than this.
        ignore: names that are never taken, in lower case and singular; one also bars names that end in it
            ("sky" bars "blue sky").
        parser: text -> mentions, in the place of our own for English.

    Raises:
        ValueError: a value out of range.
    """

    keep_colours: bool = True
    duplicates: str = 'separate'
    max_mentions: int = 4
    max_names: int = 100
    ignore: Collection[str] = ()
    parser: Callable[[str], Iterable[Mention]] | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.duplicates not in _DUPLICATES:
            raise ValueError(f'duplicates must be one of {_DUPLICATES}, got {self.duplicates!r}.')
        for name in ('max_mentions', 'max_names'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}.')
        if isinstance(self.ignore, str):
            raise ValueError(f'ignore must be a list of names, got the string {self.ignore!r}.')


def find_names(text: str, options: NameOptions | None = None, finished: bool = True) -> list[Mention]:
    """The things a text names.

    One grammar of English noun phrases reads lists with commas, bullets or numbers, JSON and sentences:

    - a name is lower case and singular ("two Dogs" is "dog", "people" is "person"), without article, number,
      possessive, place ("left") or empty word ("other");
    - adjectives, materials and colours belong to it; states ("a sleeping dog", "a car parked near") do not;
    - "a group of people" is "person": an amount says how much; "a bottle of water" stays whole: a vessel and
      what is in it are one object, and the contents tell it from another;
    - words for the picture and its mood ("image", "background", "atmosphere"), verbs and adjectives alone are
      no things; neither is what is said not to be there ("no people, cars or bikes", "without a hat"), what
      is written on a sign, or the camera somebody looks at;
    - words of other languages and scripts are taken as they are and split at punctuation.

    Time and memory are linear in the length of the text, and what comes back is bounded by the options.

    Args:
        text: the answer; may be empty.
        options: default :class:`NameOptions`.
        finished: whether the text ends where its author ended it. One that was cut ("a dog, a red bicy")
            may break off in a name, so a name that reaches its end is left out.

    Returns:
        mentions in the order of the text; none is a fine answer.

    Raises:
        VlsamError: a parser of the user's names something outside of the text.
    """
    options = options or NameOptions()
    if options.parser is None:
        mentions: Iterable[Mention] = parse(text, options.keep_colours)
    else:
        mentions = _checked(options.parser(text), len(text))
    limit = 1 if options.duplicates == 'merge' else options.max_mentions
    found: list[Mention] = []
    counts: Counter[str] = Counter()
    for mention in mentions:
        if not finished and _BROKEN_OFF.fullmatch(text, mention.end):
            continue
        if counts[mention.name] >= limit or _is_ignored(mention.name, options.ignore):
            continue
        counts[mention.name] += 1
        found.append(mention)
        if len(found) == options.max_names:
            break
    return found


def _is_ignored(name: str, ignore: Collection[str]) -> bool:
    return any(name == other or name.endswith(f' {other}') for other in ignore)


def _checked(mentions: Iterable[Mention], length: int) -> Iterator[Mention]:
    for mention in mentions:
        if not (mention.name and 0 <= mention.start < mention.end <= length):
            raise VlsamError(
                f'The parser found {mention.name!r} at characters {mention.start} to {mention.end} of a text '
                f'of {length}: give each mention a name and a place within the text.'
            )
        yield mention
