"""Links lead somewhere, all pages are in the site's navigation, and the paths in them exist."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from effdet_plugin.cli.main import COMMANDS, load, make
from support import REPOSITORY

DOCS = REPOSITORY / 'docs'
PAGES = [
    *(REPOSITORY / name for name in ('README.md', 'CONTRIBUTING.md', 'benchmarks/README.md')),
    *sorted(DOCS.glob('*.md')),
]
NAMES = [path.relative_to(REPOSITORY).as_posix() for path in PAGES]
NOTEBOOKS = [path.relative_to(REPOSITORY).as_posix() for path in sorted(DOCS.glob('*.ipynb'))]
LINK = re.compile(r'\]\(([^)\s]+)\)')
FENCE = re.compile(r'^ *```.*?^ *```', re.MULTILINE | re.DOTALL)
# What a run writes, and what people have.
NOT_HERE = ('work_dirs/', 'data/')


def text_of(path: Path) -> str:
    """A page; of a notebook its Markdown."""
    text = path.read_text(encoding='utf-8')
    if path.suffix != '.ipynb':
        return text
    cells = json.loads(text)['cells']
    return '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def anchors(path: Path) -> set[str]:
    """What headings are linked by, on GitHub and in the site."""
    headings = re.findall(r'^#+ (.+)$', FENCE.sub('', text_of(path)), re.MULTILINE)
    plain = (re.sub(r'[^\w\- ]', '', heading.lower()) for heading in headings)
    return {re.sub(r' ', '-', heading.strip()) for heading in plain}


@pytest.mark.parametrize('name', [*NAMES, *NOTEBOOKS])
def test_links__lead_somewhere(name: str) -> None:
    page = REPOSITORY / name
    for link in LINK.findall(FENCE.sub('', text_of(page))):
        if link.startswith(('https://', 'http://')):
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(REPOSITORY), link
        assert not anchor or anchor in anchors(target), link


def test_links__are_checked() -> None:
    """The pattern finds the links, and the anchors tell right from wrong."""
    assert 'docs/own_data.md' in LINK.findall(PAGES[0].read_text(encoding='utf-8'))
    assert 'compiled-operators' in anchors(DOCS / 'use_one_part.md')
    assert 'compiled' not in anchors(DOCS / 'use_one_part.md')


@pytest.mark.parametrize('name', NAMES)
def test_pages__name_files_that_exist(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding='utf-8')
    text = re.sub(r'google/automl\S* \(?`?[\w/]+', '', text)
    for path in re.findall(r'(?<![\w/.])(?:configs|tools|benchmarks|docs|tests)/[\w/]+\.\w+', text):
        assert (REPOSITORY / path).exists() or path.startswith(NOT_HERE), path


def nav_pages(nav: object) -> list[str]:
    """The pages of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [page for child in children for page in nav_pages(child)]


def test_site__has_every_page_once() -> None:
    settings = yaml.safe_load((REPOSITORY / 'mkdocs.yml').read_text(encoding='utf-8'))
    assert settings['strict'] is True
    tree = ast.parse((DOCS / 'site_hooks.py').read_text(encoding='utf-8'))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    pages = nav_pages(settings['nav'])
    elsewhere = [page for page in pages if not (DOCS / page).exists()]
    notebooks = {f'{Path(name).stem}.md' for name in NOTEBOOKS}
    assert set(elsewhere) <= texts | notebooks  # the hook adds them
    assert notebooks <= set(elsewhere)
    assert sorted(set(pages) - set(elsewhere)) == [path.name for path in sorted(DOCS.glob('*.md'))]
    assert len(pages) == len(set(pages))


@pytest.mark.parametrize('name', NAMES)
def test_pages__commands_have_their_options(name: str) -> None:
    """Every ``--option`` of a line that starts a command of ours is one of its options."""
    text = (REPOSITORY / name).read_text(encoding='utf-8').replace('\\\n', ' ')
    tools = {'infer': 'predict', 'model_table': 'models', 'check_dataset': 'check'}
    found = re.findall(
        r'(?:efficientdet |tools/)(\w+)(?:\.py)? ([^\n`|#;]*)', '\n'.join(FENCE.findall(text))
    )
    for tool, words in found:
        command = tools.get(tool, tool)
        if command not in COMMANDS:
            continue
        known = make(load(command))._option_string_actions
        for option in re.findall(r'(?<![\w-])--[a-z][\w-]+', words):
            assert option in known, (tool, option)
