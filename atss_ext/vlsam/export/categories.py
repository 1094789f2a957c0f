"""Open-ended names numbered as categories, in the order they are met."""

from collections.abc import Iterable


class Categories:
    """Names and their numbers from 0.

    Args:
        names: the first categories; names met later are appended.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        for name in names:
            self.number(name)

    def number(self, name: str) -> int:
        """The number of a name; names that differ in white space alone are the same."""
        return self._numbers.setdefault(' '.join(name.split()), len(self._numbers))

    @property
    def names(self) -> list[str]:
        """All names, in the order of their numbers."""
        return list(self._numbers)
