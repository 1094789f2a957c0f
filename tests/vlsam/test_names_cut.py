"""An answer that was cut breaks off in its last name."""

import pytest

from atss_ext.vlsam.names import Mention, NameOptions, find_names


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('a dog, a red bicy', ['dog']),
        ('dog, dog, dog, ca', ['dog', 'dog', 'dog']),
        ('dog, ' * 40 + 'ca', ['dog'] * 4),
        ('a dog, a fire ', ['dog']),
        ('a dog, a red ice-', ['dog']),
        ('a dog, a traffic l', ['dog']),
        ('a dog and a bottle of wa', ['dog']),
        ('dog, 猫\N{REPLACEMENT CHARACTER}', ['dog']),
        ('["dog", "cat"', ['dog', 'cat']),
        ('a dog, a cat,', ['dog', 'cat']),
        ('a dog, a cat.', ['dog', 'cat']),
        ('- a dog\n- a cat\n', ['dog', 'cat']),
        ('a dog, a cat, a', ['dog', 'cat']),
        ('a dog and a cat on the', ['dog', 'cat']),
        ('bicy', []),
        ('', []),
    ],
)
def test_the_name_a_cut_answer_breaks_off_in_is_no_name(text, names):
    cut = find_names(text, finished=False)
    assert [m.name for m in cut] == names
    # The same text, ended by its author, keeps whatever it names.
    assert find_names(text)[: len(cut)] == cut


def test_an_answer_that_ended_keeps_its_last_name():
    assert [m.name for m in find_names('a dog, a red bicycle')] == ['dog', 'red bicycle']

    def halves(text: str) -> list[Mention]:
        return [Mention('last', 4, 7), Mention('first', 0, 3)]

    options = NameOptions(parser=halves)
    assert [m.name for m in find_names('one two', options)] == ['last', 'first']
    assert [m.name for m in find_names('one two', options, finished=False)] == ['first']
