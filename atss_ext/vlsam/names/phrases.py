"""Noun phrases of English by closed classes of words: what names things in a description of a picture."""

from collections.abc import Iterator
from typing import NamedTuple

from atss_ext.vlsam.names import words as lists
from atss_ext.vlsam.names.plurals import is_plural, singular
from atss_ext.vlsam.names.tokens import Gap, Word, split_words

# A phrase of more words is no name but a sentence of another language or a model that runs on.
MAX_WORDS = 6
_TOWARDS = frozenset({'at', 'to', 'toward', 'towards', 'facing', 'for', 'from'})
_NOBODY = Word('', 0, 0, Gap.SENTENCE)


class Mention(NamedTuple):
    """A thing's name where a text speaks of it.

    Attributes:
        name: lower case and singular, without article, number or possessive.
        start: the first character of its words in the text.
        end: one past the last.
    """

    name: str
    start: int
    end: int


def parse(text: str, keep_colours: bool = True) -> Iterator[Mention]:
    """Every thing an English text names, in order; time grows with the text's length.

    Args:
        text: of any kind: a list, sentences, JSON. Words of other languages are kept and split at
            punctuation.
        keep_colours: whether "red" belongs to the name of a red car.

    Yields:
        its mentions, those of the same name as often as it occurs.
    """
    return _Parser(list(split_words(text)), keep_colours).run()


class _Parser:
    """Reads words one by one, collects the phrase they make and lets go of it where it ends."""

    def __init__(self, words: list[Word], keep_colours: bool) -> None:
        self.words = words
        self.keep_colours = keep_colours
        self.phrase: list[Word] = []
        self.first = 0  # index of its first word
        self.contents = 0  # where "of" stands in the phrase, 0 where nowhere
        self.too_long = False
        self.introduction = ''  # the determiner before the phrase
        self.copula = False  # the phrase follows an "is" that says what something is like
        self.negated = False
        self.negated_list = False  # the first of the things that are not there has been named

    def run(self) -> Iterator[Mention]:
        for index in range(len(self.words)):
            yield from self._read(index)
        yield from self._flush(_NOBODY)

    def _at(self, index: int) -> Word:
        return self.words[index] if 0 <= index < len(self.words) else _NOBODY

    def _read(self, index: int) -> Iterator[Mention]:
        """Take in one word."""
        word = self.words[index]
        if word.gap:
            yield from self._flush(_NOBODY)
            if word.gap == Gap.SENTENCE:
                self.negated = False
        if self.phrase and word.text == self.phrase[-1].text:  # "dog dog dog"
            yield from self._flush(_NOBODY)
        if self._is_negation(index):
            yield from self._flush(word)
            self.negated, self.negated_list = True, False
        elif word.text == 'of' and self.phrase:
            yield from self._read_of(index)
        elif self._joins_colours(index):
            self.phrase.append(word)
        elif self._introduces(word):
            if word.possessive:  # "a tennis player's racket"
                self._clear()
            yield from self._flush(word)
            self.introduction = word.text
            # A list of what is not there goes on without articles, or after an "or".
            listed = word.text in ('any', 'either') or self._at(index - 1).text in ('or', 'nor')
            self.negated &= listed or not self.negated_list
        elif self._is_stop(index):
            yield from self._flush(word)
            self._stop(index)
        elif len(self.phrase) < MAX_WORDS + (self.contents > 0):
            self.first = self.first if self.phrase else index
            self.phrase.append(word)
        else:
            self.too_long = True

    def _stop(self, index: int) -> None:
        word = self.words[index].text
        self.introduction = ''
        before = self._at(index - 1).text
        self.copula = word in lists.COPULAS and before not in ('there', 'here')
        if word == 'but' or (self.negated_list and word not in lists.COORDINATORS):
            self.negated = False

    def _read_of(self, index: int) -> Iterator[Mention]:
        """ "A group of people" are people, "a bottle of water" is a bottle of water."""
        head = singular(self.phrase[-1].text, contents=True)
        after = self._at(index + 1)
        if head in lists.COLLECTIVES:
            self._clear()
        elif head in lists.CONTAINERS and not self.contents and not after.gap and self._is_plain(index + 1):
            self.contents = len(self.phrase)
            self.phrase.append(self.words[index])
        else:
            yield from self._flush(self.words[index])
            self._stop(index)

    def _is_plain(self, index: int) -> bool:
        """Whether a word may stand inside of a name, looked at by itself."""
        word = self._at(index)
        return bool(word.text) and not (
            self._introduces(word)
            or word.text in lists.STOPS
            or word.text in lists.NEGATIONS
            or word.text in lists.BASE_VERBS
            or _is_adverb(word.text)
        )

    def _introduces(self, word: Word) -> bool:
        if word.possessive or word.text[0].isdigit() or word.text in lists.DETERMINERS:
            return True
        # "the top left car", "other dogs"; but "a table top"
        return word.text in lists.EMPTY_MODIFIERS or (word.text in lists.POSITIONS and not self.phrase)

    def _is_negation(self, index: int) -> bool:
        word, after = self.words[index].text, self._at(index + 1)
        if word.endswith("n't"):
            return True
        if word not in lists.NEGATIONS:
            return False
        if word == 'no':
            return not after.gap and after.text != 'one'
        if word in ('rather', 'instead'):
            return after.text in ('than', 'of')
        return not (after.gap or (word == 'not' and after.text in lists.AFFIRMATIVE_AFTER_NOT))

    def _joins_colours(self, index: int) -> bool:
        """ "And" in "a black and white cat"."""
        if self.words[index].text not in ('and', '&') or not self.phrase or self.contents:
            return False
        colour, after = self._at(index + 1), self._at(index + 2)
        return (
            self.phrase[-1].text in lists.COLOURS
            and colour.text in lists.COLOURS
            and all(_is_modifier(word.text) for word in self.phrase)
            and not (colour.gap or after.gap)
            and self._is_plain(index + 2)
        )

    def _is_stop(self, index: int) -> bool:
        word, before, after = self.words[index].text, self._at(index - 1), self._at(index + 1)
        if word in lists.STOPS or (len(word) == 1 and word.isascii()):
            return True
        if _is_adverb(word) or "'" in word:  # "it's", "we're"
            return True
        agent = self.phrase[-1].text if self.phrase else ''
        if word == 'can':
            return before.text in lists.BEFORE_CAN or after.text in lists.AFTER_CAN or _is_adverb(after.text)
        if word in lists.BASE_VERBS:  # "people watch", "they watch", "to watch"
            return is_plural(agent) or before.text in lists.PRONOUNS or before.text in lists.MODALS
        if word in lists.NOUN_VERBS and word.endswith('s'):  # "a woman watches TV"
            return bool(agent) and self.introduction in lists.SINGULAR_DETERMINERS
        if word.endswith('ing') and len(word) > 4 and word.isascii():
            return self._is_participle(index)
        if word.endswith('ed') and len(word) > 3 and word not in lists.ED_NOUNS and word.isascii():
            # "a potted plant" goes on, "a car parked near" ends
            return bool(after.gap) or not self._is_plain(index + 1)
        return False

    def _is_participle(self, index: int) -> bool:
        """Whether a word in -ing says what somebody does."""
        word, after = self.words[index].text, self._at(index + 1)
        if not after.gap and f'{word}-{singular(after.text)}' in lists.ING_COMPOUNDS:
            return False
        if word not in lists.ING_NOUNS:
            return True
        # "a man painting a wall"; but "a painting"
        begins = bool(self.introduction) and not self.phrase
        return not begins and not after.gap and after.text in lists.DETERMINERS

    def _clear(self) -> None:
        self.phrase, self.contents, self.too_long = [], 0, False
        self.introduction, self.copula = '', False

    def _flush(self, following: Word) -> Iterator[Mention]:
        """The phrase is over, ``following`` is the word that ended it."""
        phrase, contents = self.phrase, self.contents
        dropped = self.too_long or self.negated
        introduction, copula = self.introduction, self.copula
        self._clear()
        if not phrase:
            return
        self.negated_list = True
        if not contents and self._ends_in_verb(phrase, introduction, following):
            phrase = phrase[:-1]
        # "The mood is serene": no thing. "The object is a dog", "These are dogs" are.
        alike = copula and len(phrase) == 1 and not introduction and not is_plural(phrase[0].text)
        if dropped or alike:
            return
        mention = _name(phrase, contents, self.keep_colours)
        if mention is not None and not (mention.name == 'camera' and self._is_looked_at()):
            yield mention

    def _ends_in_verb(self, phrase: list[Word], introduction: str, following: Word) -> bool:
        """ "A cat lounges on", "men face the", "onlookers cheer him": told by number and by what follows."""
        if len(phrase) < 2 or not following.text or following.text in lists.NEVER_AFTER_A_VERB:
            return False
        subject, last = phrase[-2].text, phrase[-1].text
        if not is_plural(last):
            return is_plural(subject)
        return introduction in lists.SINGULAR_DETERMINERS or following.text in lists.DETERMINERS

    def _is_looked_at(self) -> bool:
        """ "Smiling at the camera": one that is not in the picture."""
        return self._at(self.first - 1).text == 'the' and self._at(self.first - 2).text in _TOWARDS


def _is_adverb(word: str) -> bool:
    return word.endswith('ly') and len(word) > 3 and word.isascii() and word not in lists.LY_WORDS


def _is_adjective(word: str) -> bool:
    """Whether a word is no thing, in the place where things stand: the last of a phrase."""
    if word in lists.ADJECTIVES or (word in lists.COLOURS and word not in lists.NOUN_COLOURS):
        return True
    if '-' in word:
        parts = word.split('-')
        return parts[-1] in ('made', 'like', 'sized', 'style', 'free') or all(
            part in lists.COLOURS or part == 'and' for part in parts
        )
    if word in lists.NOUN_ENDINGS_LIKE_ADJECTIVES or len(word) < 6:
        return False
    return word.isascii() and word.endswith(('ful', 'ous', 'less', 'able', 'ible'))


def _is_modifier(word: str) -> bool:
    return word == 'and' or word in lists.COLOURS or word in lists.SHADES or _is_adjective(word)


def _is_scene(word: str, before: str) -> bool:
    """Whether the last word of a phrase speaks of the picture ("street scene", "dogs' right")."""
    head = singular(word)
    return head in lists.SCENE and f'{before}-{head}' not in lists.KEPT


def _trim(words: list[Word]) -> list[Word]:
    """Without what is no thing at the end."""
    while words:
        word, before = words[-1].text, words[-2].text if len(words) > 1 else ''
        if not (word in ('and', 'of') or _is_adjective(word) or _is_scene(word, before)):
            break
        words = words[:-1]
    return words


def _drop_colours(words: list[Word]) -> list[Word]:
    """Without the colours in front of the head, and what belongs to them."""
    kept: list[Word] = []
    for word in words[:-1]:
        if _is_colour(word.text):
            while kept and kept[-1].text in lists.SHADES | {'and'}:
                kept.pop()
        elif word.text != 'and':
            kept.append(word)
    return kept + words[-1:]


def _is_colour(word: str) -> bool:
    return all(part in lists.COLOURS | lists.SHADES | {'and'} for part in word.split('-')) and any(
        part in lists.COLOURS for part in word.split('-')
    )


def _name(phrase: list[Word], contents: int, keep_colours: bool) -> Mention | None:
    """What a phrase names, if anything."""
    inside = _trim(phrase[contents + 1 :]) if contents else []
    words = _trim(phrase[:contents] if contents else phrase)
    while len(words) > 1 and words[0].text == 'and':
        words = words[1:]
    if not words:
        return None
    if not keep_colours:
        words, inside = _drop_colours(words), _drop_colours(inside)
    before = words[-2].text if len(words) > 1 else ''
    head = singular(words[-1].text, before, bool(inside))
    if (len(words) == 1 and not inside and head in lists.GENERIC) or f'{before}-{head}' in lists.NOT_THINGS:
        return None
    spoken = [word.text for word in words[:-1]] + [head]
    if inside:
        spoken += ['of', *(word.text for word in inside)]
    if not any(char.isalpha() for part in spoken for char in part):
        return None
    return Mention(' '.join(spoken), words[0].start, (inside or words)[-1].end)
