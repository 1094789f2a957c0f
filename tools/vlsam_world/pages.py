"""What the tools of the small world write: folders, and sections of pages.

A section is the lines between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
"""

import os
from pathlib import Path

from atss_ext.errors import UserError


def split_page(path: Path, name: str) -> tuple[str, str, str]:
    """The text before a section with its first mark, the section, and the last mark with what follows.

    Args:
        path: of the page.
        name: of the section.

    Raises:
        UserError: there is no such page or section.
    """
    begin, end = (f'<!-- {name}: {edge} -->' for edge in ('begin', 'end'))
    if not path.is_file():
        raise UserError(f'{path} does not exist; give a page with the lines {begin} and {end}.')
    text = path.read_text(encoding='utf-8')
    if not 0 <= text.find(begin) < text.find(end):
        raise UserError(f'{path} has no section {name}; write the lines {begin} and {end} where it belongs.')
    before, rest = text.split(begin, 1)
    section, after = rest.split(end, 1)
    return before + begin, section.strip('\n'), end + after


def fill_page(path: Path, name: str, section: str) -> None:
    """Write a section of a page anew; the others stay as they are.

    Raises:
        UserError: there is no such page or section.
    """
    before, _, after = split_page(path, name)
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_text(f'{before}\n\n{section}\n\n{after}', encoding='utf-8')
    os.replace(partial, path)


def make_folder(path: Path) -> None:
    """Make a folder for results, before minutes are spent on them.

    Raises:
        UserError: it cannot be made, as where a file of that name is.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'the folder {path} cannot be made ({error.strerror}); choose another.') from error
