"""The floors of CONTRIBUTING.md, checked in the source: imports go down, and never in a circle."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from effdet_plugin import compat
from support import REPOSITORY

PACKAGE = REPOSITORY / 'effdet_plugin'
# A row of CONTRIBUTING's table: | floor | units of the package | what |
ROW = re.compile(r'^\| (\d+) \| (`.*?) \|', re.MULTILINE)


def read_floors(text: str) -> dict[str, int]:
    """The floor of each unit, from the table; higher numbers are higher floors."""
    pairs = [
        (unit, int(n)) for n, cell in ROW.findall(text) for unit in re.findall(r'`(\w+)`', cell)
    ]
    floors = dict(pairs)
    assert len(floors) == len(pairs), 'a unit is named twice'
    return floors


FLOOR = read_floors((REPOSITORY / 'CONTRIBUTING.md').read_text(encoding='utf-8'))
# These meet in mmdet's registries only; those above may call each other's functions.
PARTS = {unit for unit, number in FLOOR.items() if number == FLOOR['models']}
OPTIONAL = {
    'ai_edge_litert', 'effdet', 'google_crc32c', 'h5py', 'litert_torch', 'nncf', 'onnx',
    'onnxruntime', 'onnxscript', 'openvino', 'pytest', 'tensorflow', 'triton',
}  # fmt: skip
GROUND = {'torch', 'numpy', 'effdet_plugin', *sys.stdlib_module_names}


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob('*.py'))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_name(path): path for path in files_of(PACKAGE)}


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'))


def names_of(node: ast.AST) -> Iterator[str]:
    """What one statement imports, ``from package import module`` as the module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, 'imports are absolute here'
        for alias in node.names:
            full = f'{node.module}.{alias.name}'
            yield full if full in MODULES else str(node.module)


def imports_of(path: Path) -> set[str]:
    return {name for node in ast.walk(parse(path)) for name in names_of(node)}


def imported_on_load(path: Path) -> set[str]:
    """Top-level packages that importing the file imports: not those inside functions."""
    found, left = set(), list(parse(path).body)
    while left:
        node = left.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found |= {name.split('.')[0] for name in names_of(node)}
            left += ast.iter_child_nodes(node)
    return found


def unit_of(module: str) -> str:
    return module.split('.')[1] if '.' in module else ''


def ours(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split('.')[0] == 'effdet_plugin'}


def test_floors__name_every_unit_of_the_package() -> None:
    assert {*FLOOR} - {'tools'} == {unit_of(module) for module in MODULES} - {''}
    assert {*PARTS} == {'models', 'task_modules', 'datasets', 'engine', 'evaluation'}
    assert max(FLOOR, key=FLOOR.__getitem__) == 'tools'


def test_read_floors() -> None:
    table = '| floor | where |\n| --- | --- |\n| 2 | `b`, `c` | the `d` |\n| 1 | `a` | x |\n'
    assert read_floors(table) == {'b': 2, 'c': 2, 'a': 1}


def test_compat__names_what_needs_mmdet() -> None:
    above_ops = {unit for unit, number in FLOOR.items() if number > FLOOR['ops']}
    # The others import mmdet by way of these, or not at all.
    assert {*compat._NEED_MMDET} == above_ops - {
        '__main__',
        'cli',
        'convert',
        'env',
        'published',
        'tools',
    }


def is_allowed(unit: str, other: str) -> bool:
    """Whether a module of one unit may import one of another."""
    if other in ('', unit):
        return True
    return FLOOR.get(other, 99) <= FLOOR[unit] and not {unit, other} <= PARTS


def test_imports_go_down() -> None:
    wrong = [
        f'{module} imports {name}'
        for module, path in MODULES.items()
        if unit_of(module)
        for name in ours(path)
        if not is_allowed(unit_of(module), unit_of(name))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ('unit', 'other', 'allowed'),
    [
        ('models', 'ops', True),
        ('ops', 'models', False),
        ('models', 'engine', False),
        ('training', 'inference', True),
        ('files', 'errors', True),
        ('errors', 'files', False),
        ('compat', 'config', False),
        ('engine', 'config', True),
        ('inference', 'convert', True),
        ('config', 'inference', False),
        ('models', 'env', False),
    ],
)
def test_is_allowed(unit: str, other: str, allowed: bool) -> None:
    assert is_allowed(unit, other) is allowed


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Some circle of the graph, empty without one."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            circle = visit(other, [*trail, name])
            if circle:
                return circle
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


def test_find_circle() -> None:
    assert find_circle({'a': {'b', 'c'}, 'b': {'c'}, 'c': set()}) == []
    assert find_circle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c', 'b']


def test_no_circle_of_modules() -> None:
    graph = {module: ours(path) - {'effdet_plugin'} for module, path in MODULES.items()}
    assert ' -> '.join(find_circle(graph)) == ''


def test_no_circle_of_packages() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        unit = unit_of(module)
        graph.setdefault(unit, set()).update(map(unit_of, ours(path)))
        graph[unit] -= {unit, ''}
    graph.pop('')
    assert ' -> '.join(find_circle(graph)) == ''


def test_ops_know_torch_only() -> None:
    found = {name.split('.')[0] for path in files_of(PACKAGE / 'ops') for name in imports_of(path)}
    assert found <= GROUND | {'triton'}


def test_optional_packages_are_imported_where_they_are_needed() -> None:
    found = {module: imported_on_load(path) & OPTIONAL for module, path in MODULES.items()}
    assert {module: names for module, names in found.items() if names} == {}


def test_tools_are_imported_by_nobody() -> None:
    tools = files_of(REPOSITORY / 'tools')
    names = {'tools', *(tool.stem for tool in tools)} - {'_bootstrap', *sys.stdlib_module_names}
    for path in (*MODULES.values(), *tools):
        found = {name.split('.')[0] for name in imports_of(path)}
        assert not found & names, path
        assert path in tools or '_bootstrap' not in found, path
