"""Checks of what only LVIS has: the federated lists of its images, and the frequency of its categories.

Source: Gupta, Dollar, Girshick, *LVIS* (CVPR 2019), section 3: an image is searched for its positive
categories and those of ``neg_category_ids`` alone, and of ``not_exhaustive_category_ids`` some objects may
be unlabelled; categories are rare, common or frequent by the number of training images that show them (up
to 10, up to 100, more).
"""

from typing import Any

from atss_ext.datasets.annotation_checks.table import Finding, Table, found

LISTS = ('neg_category_ids', 'not_exhaustive_category_ids')
_SHORT = {'neg_category_ids': 'negative', 'not_exhaustive_category_ids': 'partial'}


def check_lvis(table: Table) -> list[Finding]:
    """Check the lists and frequencies of an LVIS file."""
    findings: list[Finding] = []
    known = set(table.category_ids)
    for key in LISTS:
        bad, unknown = [], []
        for row, image in enumerate(table.images):
            if _list(image, key) is None:
                bad.append(row)
            elif not known.issuperset(image[key]):
                unknown.append(row)
        message = f"the image has no list of numbers '{key}', which the LVIS evaluation reads"
        findings += found(f'lvis-{_SHORT[key]}-list', message, table.image_ids, bad)
        message = f"'{key}' of the image names a category that the file does not have"
        findings += found(f'lvis-{_SHORT[key]}-unknown', message, table.image_ids, unknown)
    return findings + _check_contradictions(table) + _check_frequency(table)


def _list(image: dict[str, Any], key: str) -> list[int] | None:
    value = image.get(key)
    return value if isinstance(value, list) and set(map(type, value)) <= {int} else None


def _check_contradictions(table: Table) -> list[Finding]:
    positive: list[set[Any]] = [set() for _ in table.images]
    for image, category in zip(table.image_rows.tolist(), table.category_rows.tolist(), strict=True):
        if image >= 0 and category >= 0:
            positive[image].add(table.category_ids[category])
    absent, both, unseen = [], [], []
    for row, image in enumerate(table.images):
        negative, partial = (set(_list(image, key) or ()) for key in LISTS)
        if negative & positive[row]:
            absent.append(row)
        if negative & partial:
            both.append(row)
        if partial - positive[row]:
            unseen.append(row)
    ids = table.image_ids
    message = "a category of the image's neg_category_ids has an annotation in it"
    findings = found('lvis-negative-seen', message, ids, absent)
    message = 'a category of the image is in neg_category_ids and in not_exhaustive_category_ids'
    findings += found('lvis-both', message, ids, both)
    message = "a category of the image's not_exhaustive_category_ids has no annotation in it"
    return findings + found('lvis-partial-unseen', message, ids, unseen)


def _check_frequency(table: Table) -> list[Finding]:
    bad = [
        row
        for row, category in enumerate(table.categories)
        if category.get('frequency') not in ('r', 'c', 'f')
    ]
    message = "the category's frequency is none of 'r', 'c', 'f', which APr, APc and APf need"
    findings = found('lvis-frequency', message, table.category_ids, bad)
    agree: list[int] = []
    differ: list[int] = []
    for row, category in enumerate(table.categories):
        images = category.get('image_count')
        if isinstance(images, int) and images > 0 and category.get('frequency') in ('r', 'c', 'f'):
            expected = 'r' if images <= 10 else 'c' if images <= 100 else 'f'
            (agree if category['frequency'] == expected else differ).append(row)
    # Cut-out files count their own images there, which says nothing of the training set.
    if len(agree) > len(differ):
        message = "the category's frequency disagrees with its image_count (r up to 10, c up to 100)"
        findings += found('lvis-count', message, table.category_ids, differ)
    return findings
