"""Reads one annotation file of Pascal VOC; what a stranger's XML may do is bounded.

No document type: entities that grow without bound ("billion laughs") and references to other files need one,
and no VOC file has one. Size and depth are bounded, too. Every element knows its line.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.parsers import expat

from atss_ext.errors import UserError

MAX_BYTES = 16 << 20
MAX_DEPTH = 32
_FLAGS = ('difficult', 'truncated', 'occluded')


@dataclass(frozen=True)
class VocObject:
    """One object: class name, corners (xmin, ymin, xmax, ymax) as written, flags that are given, line."""

    name: str
    corners: tuple[float, float, float, float]
    flags: dict[str, int]
    line: int


@dataclass(frozen=True)
class VocImage:
    """One file: the image's name and (width, height) where given, and its objects."""

    file_name: str | None
    size: tuple[int, int] | None
    objects: list[VocObject]


class _Element:
    def __init__(self, tag: str, line: int) -> None:
        self.tag, self.line, self.text, self.children = tag, line, '', list[_Element]()

    def child(self, tag: str) -> '_Element | None':
        return next((child for child in self.children if child.tag == tag), None)


def read_voc(path: Path) -> VocImage:
    """Read an annotation file.

    Raises:
        UserError: it is no XML, has a document type, or lacks what an annotation needs; the sentence names
            file and line.
    """
    root = _parse(path)
    if root.tag != 'annotation':
        raise _fault(path, root, f'starts with <{root.tag}> instead of <annotation>; it is no VOC annotation')
    name = root.child('filename')
    objects = [_read_object(path, child) for child in root.children if child.tag == 'object']
    return VocImage(name.text.strip() if name else None, _read_size(path, root), objects)


def _parse(path: Path) -> _Element:
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f'{path} has more than {MAX_BYTES >> 20} MiB; it is no VOC annotation: remove it')
    parser = expat.ParserCreate()
    document = _Element('', 0)
    stack = [document]

    def start(tag: str, _: Any) -> None:
        if len(stack) > MAX_DEPTH:
            raise UserError(
                f'{path}, line {parser.CurrentLineNumber}: more than {MAX_DEPTH} elements are nested'
            )
        element = _Element(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def text(data: str) -> None:
        stack[-1].text += data

    def refuse(*_: Any) -> None:
        raise UserError(
            f'{path}, line {parser.CurrentLineNumber}: it declares a document type, which can make a reader '
            'open other files; remove the <!DOCTYPE ...>'
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code)
        raise UserError(
            f'{path}, line {error.lineno}: it is no valid XML ({reason}); correct or remove it'
        ) from None
    return document.children[0]


def _read_size(path: Path, root: _Element) -> tuple[int, int] | None:
    size = root.child('size')
    if size is None:
        return None
    width, height = (_number(path, size, key) for key in ('width', 'height'))
    if width == height == 0:  # what some tools write for "not known"
        return None
    if not (width > 0 and height > 0 and width == int(width) and height == int(height)):
        raise _fault(path, size, f'the size is {width:g} x {height:g}; whole numbers above zero are needed')
    return int(width), int(height)


def _read_object(path: Path, element: _Element) -> VocObject:
    name = element.child('name')
    if name is None or not name.text.strip():
        raise _fault(path, element, 'the object has no <name>; add it')
    box = element.child('bndbox')
    if box is None:
        raise _fault(
            path, element, f"the object '{name.text.strip()}' has no <bndbox>; add it or remove the object"
        )
    corners = [_number(path, box, key) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
    if corners[2] < corners[0] or corners[3] < corners[1]:
        listed = ', '.join(f'{value:g}' for value in corners)
        raise _fault(path, box, f'xmin, ymin, xmax, ymax are {listed}, an inverted box; correct it')
    flags = {key: int(_number(path, element, key) != 0) for key in _FLAGS if element.child(key) is not None}
    return VocObject(name.text.strip(), (corners[0], corners[1], corners[2], corners[3]), flags, box.line)


def _number(path: Path, parent: _Element, key: str) -> float:
    element = parent.child(key)
    if element is None:
        raise _fault(path, parent, f'<{parent.tag}> has no <{key}>; add it')
    try:
        value = float(element.text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _fault(path, element, f"<{key}> is '{element.text.strip()}', not a number; correct it")
    return value


def _fault(path: Path, element: _Element, what: str) -> UserError:
    return UserError(f'{path}, line {element.line}: {what}')
