"""The page on parts has each registered name, its arguments, and an example that is run here."""

import doctest
import importlib
import inspect
import re

import pytest
from mmdet import registry
from mmengine.logging import MMLogger
from mmengine.registry import Registry

import effdet_plugin
from support import REPOSITORY

PAGE = (REPOSITORY / 'docs' / 'parts.md').read_text(encoding='utf-8')
SECTION = re.compile(r'^### (\w+)\n(.*?)(?=^##|\Z)', re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r'^```pycon\n(.*?)^```', re.MULTILINE | re.DOTALL)


def registered() -> dict[str, object]:
    """The package's own classes by their names in mmdet's registries."""
    nodes = [node for node in vars(registry).values() if isinstance(node, Registry)]
    items = [pair for node in nodes for pair in node.module_dict.items()]
    return {
        n: item for n, item in items if item.__module__.startswith(effdet_plugin.__name__ + '.')
    }


def test_parts__are_the_registered_names() -> None:
    assert sorted(name for name, _ in SECTION.findall(PAGE)) == sorted(registered())


def test_parts__have_an_example_and_the_arguments_of_their_class() -> None:
    known = registered()
    for name, text in SECTION.findall(PAGE):
        assert EXAMPLE.search(text), name
        (path,) = re.findall(r'^::: (\S+)$', text, re.MULTILINE)
        module, _, found = path.rpartition('.')
        assert getattr(importlib.import_module(module), found) is known[name]
        assert inspect.getdoc(known[name]), name


def test_parts__examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    MMLogger.get_current_instance().setLevel('WARNING')
    names: dict[str, object] = {}
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    parser = doctest.DocTestParser()
    said: list[str] = []
    for found in EXAMPLE.finditer(PAGE):
        line = PAGE[: found.start()].count('\n') + 1
        test = parser.get_doctest(found[1], names, f'parts.md:{line}', 'parts.md', line)
        runner.run(test, out=said.append, clear_globs=False)
        names |= test.globs
    assert not runner.failures, ''.join(said)
    assert runner.tries > 100
