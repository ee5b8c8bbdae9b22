"""The list of categories of COCO jsons: which of them are classes, and in which order."""

from collections import Counter
from typing import Any, NamedTuple

from effdet_plugin.datasets.readers.findings import Findings, printable
from effdet_plugin.datasets.readers.numbers import whole

#: What some tools write as a category of their own for "nothing".
_NO_OBJECT = frozenset({'_background_', '__background__', '__ignore__', 'background'})


class Category(NamedTuple):
    """One entry of the list; ``group`` is its supercategory, '' where there is none."""

    name: str
    group: str = ''


def categories_of(document: dict[str, Any]) -> dict[int | str, Category]:
    """Categories by id, in the order of the ids (numbers before texts)."""
    found: dict[int | str, Category] = {}
    entries = document.get('categories')
    for entry in entries if isinstance(entries, list) else []:
        key = _key(entry.get('id')) if isinstance(entry, dict) else None
        if key is not None:
            found.setdefault(
                key, Category(_text(entry.get('name')), _text(entry.get('supercategory')))
            )
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def class_names(
    tables: list[tuple[str, dict[int | str, Category]]], used: Counter[str], findings: Findings
) -> list[str]:
    """The classes of all splits: the order of the first table, then what only others have.

    Args:
        tables: File name and categories of each split, the training split first.
        used: Number of boxes of each name over all splits.
        findings: Groups, doubles and blank names are noted here.
    """
    groups = {one.group for _, table in tables for one in table.values() if one.group != one.name}
    names: dict[str, bool] = {}
    for file, table in tables:
        _note_doubles(file, table, findings)
        for category in table.values():
            is_class = bool(used[category.name]) or not _is_no_class(category, groups)
            if not names.setdefault(category.name, is_class) and is_class:
                names[category.name] = True
    for name in (name for name, is_class in names.items() if not is_class):
        findings.add('class_group', tables[0][0], '', name)
    return [name for name, is_class in names.items() if is_class]


def _is_no_class(category: Category, groups: set[str]) -> bool:
    # Supervisely gives each class its own name as group, which says nothing.
    groups_others = category.name in groups and category.group != category.name
    return groups_others or category.name in _NO_OBJECT


def note_double_ids(document: dict[str, Any], file: str, findings: Findings) -> None:
    """Note ids that stand for several names: it is unclear what their boxes are."""
    names: dict[int | str, set[str]] = {}
    entries = document.get('categories')
    for entry in entries if isinstance(entries, list) else []:
        key = _key(entry.get('id')) if isinstance(entry, dict) else None
        if key is not None:
            names.setdefault(key, set()).add(_text(entry.get('name')))
    for key in (key for key, spoken in names.items() if len(spoken) > 1):
        findings.add('category_id_double', file, '', f'{key} ({", ".join(sorted(names[key]))})')


def _note_doubles(file: str, table: dict[int | str, Category], findings: Findings) -> None:
    for name, count in Counter(one.name for one in table.values()).items():
        if count > 1:
            findings.add('class_double', file, '', name)
        if not name:
            findings.add('class_missing', file)


def _key(value: object) -> int | str | None:
    number = whole(value)
    return number if number is not None else value if isinstance(value, str) and value else None


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str | int | float) else ''
