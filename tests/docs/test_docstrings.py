"""Docstrings name arguments that are there: the site's generator warns of others."""

import ast
import re
from collections.abc import Iterator

from support import REPOSITORY

PACKAGE = REPOSITORY / 'effdet_plugin'
_ARGS = re.compile(r'^Args:\n((?:    .*\n?|\n)+)', re.MULTILINE)
_NAME = re.compile(r'^    (\S[^:]*):', re.MULTILINE)


def test_arguments__are_those_of_the_signature() -> None:
    wrong = [
        f'{path.relative_to(PACKAGE)}: {node.name}: {name}'
        for path in sorted(PACKAGE.rglob('*.py'))
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        for name in named(ast.get_docstring(node) or '')
        if name.lstrip('*') not in arguments(node)
    ]
    assert not wrong


def named(text: str) -> list[str]:
    """Return the names in the Args section of a docstring."""
    found = _ARGS.search(text)
    return _NAME.findall(found[1]) if found else []


def arguments(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Return the arguments of a function, or of a class: its __init__'s, else its fields."""
    if isinstance(node, ast.FunctionDef):
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        return {one.arg for one in every if one is not None}
    return next((arguments(one) for one in inits(node)), fields(node))


def inits(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yield the methods of a class that take its arguments."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name in ('__init__', '__new__'):
            yield one


def fields(node: ast.ClassDef) -> set[str]:
    """Return the annotated names of a class."""
    return {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
