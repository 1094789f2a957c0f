"""The page's tables: kinds of errors, outcomes of objects, groups, categories."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from atss_ext.evaluation.errors.figures import wrong_total
from atss_ext.visualization.error_page.markup import figure, plain, shown, table, tag, text
from atss_ext.visualization.error_page.plots import sparkline

MEANINGS = {
    'correct': 'It found an object: IoU of t or more, the right category, the best score on that object.',
    'duplicate': 'IoU of t or more with an object of its category that a better detection had already found.',
    'confused': 'IoU of t or more with an object of another category.',
    'localisation': 'Right category, but an IoU of only 0.1 to t.',
    'both': 'Wrong category, and an IoU of only 0.1 to t.',
    'background': 'It overlaps every object by less than 0.1.',
    'ignored': 'On a crowd or an ignored object, or its category was not searched for there; not counted.',
}
OUTCOMES = {
    'found': 'A correct detection lies on it.',
    'confused': 'Not found; a detection of another category lies on it.',
    'localisation': 'Not found; a detection of its category overlaps it too little.',
    'missed': 'Neither of these.',
    'ignored': 'A crowd or an ignored object; not counted.',
}
_CLASSES = {'found': 'correct'}


def kinds_table(detections: Mapping[str, int], iou: float) -> str:
    """Detections by kind, with what each kind means."""
    return _meanings(f'Detections by kind, t = {iou:g}', 'Kind', 'detections', MEANINGS, detections)


def outcomes_table(objects: Mapping[str, int]) -> str:
    """Objects by outcome, with what each outcome means."""
    return _meanings('Objects by what became of them', 'Outcome', 'objects', OUTCOMES, objects)


def _meanings(
    caption: str, what: str, path: str, meanings: Mapping[str, str], counts: Mapping[str, int]
) -> str:
    most = max(1, *(counts[name] for name in meanings))
    rows = []
    for name, meaning in meanings.items():
        kind = _CLASSES.get(name, name)
        bar = tag('span', '', class_=f'bar {kind}', style=f'width:{100 * counts[name] / most:.1f}%')
        cells = [
            tag('th', tag('span', '', class_=f'dot {kind}') + tag('span', text(name)), scope='row'),
            figure(f'{path}.{name}', counts[name]),
            tag('td', bar if counts[name] else '', class_='barcell', aria_hidden='true'),
            tag('td', text(meaning), class_='words'),
        ]
        rows.append(tag('tr', ''.join(cells)))
    heads = [*map(_head, (what, 'Count')), tag('td', class_='barcell'), _head('Meaning', 'words')]
    return table(caption, heads, rows)


def group_table(caption: str, path: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Objects and detections of each group, a column each, with shares of all objects and all detections."""
    rows = []
    for head, keys in _count_columns(next(iter(groups.values()))).items():
        cells = [_cell(f'{path}.{name}', group, keys, share=True) for name, group in groups.items()]
        rows.append(tag('tr', tag('th', text(head), scope='row') + ''.join(cells)))
    return table(caption, map(_head, ('', *groups)), rows, class_='groups')


def _count_columns(group: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Heads of the columns, and where in a group of figures their values lie."""
    first: dict[str, tuple[str, ...]] = {'Categories': ('categories',)} if 'categories' in group else {}
    if 'ap' in group:
        first['AP'] = ('ap',)
    return first | {
        'Objects': ('objects', 'total'),
        'Found': ('objects', 'found'),
        'Confused (objects)': ('objects', 'confused'),
        'Mislocated (objects)': ('objects', 'localisation'),
        'Missed': ('objects', 'missed'),
        'Recall': ('recall',),
        'Detections': ('detections', 'total'),
        **{
            kind.capitalize(): ('detections', kind)
            for kind in ('duplicate', 'confused', 'localisation', 'both', 'background')
        },
        'Precision': ('precision',),
    }


def _cell(path: str, group: Mapping[str, Any], keys: Sequence[str], share: bool = False) -> str:
    value: Any = group
    for key in keys:
        value = value[key]
    whole = group[keys[0]]['total'] if share and len(keys) > 1 and keys[1] != 'total' else None
    return figure('.'.join((path, *keys)), value, whole=whole)


def category_table(categories: Sequence[Mapping[str, Any]], curves: NDArray[Any]) -> str:
    """One row a category, with its curve; those that occur come first; buttons sort where scripts run."""
    columns = _count_columns(categories[0])
    rows = []
    # Most of LVIS's 1,203 categories may be in no image of a part.
    for place, category in sorted(enumerate(categories), key=lambda entry: not _occurs(entry[1])):
        name = tag('th', text(category['name']), scope='row')
        curve = tag('td', sparkline(curves[:, place], category['name'], category['ap']))
        counts = ''.join(_cell(f'categories.{place}', category, keys) for keys in columns.values())
        rows.append(tag('tr', name + curve + counts))
    heads = [_sortable('Category'), _head('Precision over recall'), *map(_sortable, columns)]
    return table('Categories; a head sorts by its column', heads, rows, id='category-table')


def _occurs(category: Mapping[str, Any]) -> bool:
    return bool(category['objects']['total'] or category['detections']['total'])


def tiles(values: Iterable[tuple[str, str, Any]]) -> str:
    """Large figures: name, path and value of each."""
    return tag(
        'dl',
        ''.join(
            tag('div', tag('dt', text(name)) + figure(path, value, 'dd')) for name, path, value in values
        ),
        class_='tiles',
    )


def sentence(figures: Mapping[str, Any]) -> str:
    """The result in words."""
    objects, detections = figures['objects'], figures['detections']
    wrong = wrong_total(detections)
    return tag(
        'p',
        f'Of {shown(objects["total"])} objects {shown(objects["found"])} are found and '
        f'{shown(objects["missed"])} missed; of {shown(detections["total"])} detections scoring '
        f'{plain(figures["score"])} or more {shown(wrong)} are wrong.',
    )


def _head(name: str, kind: str | None = None) -> str:
    if not name:
        return tag('td')
    return tag('th', text(name), scope='col', class_=kind)


def _sortable(name: str) -> str:
    return tag('th', tag('button', text(name), type='button'), scope='col')
