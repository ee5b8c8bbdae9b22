"""Adds pages to the site that are not in docs/, and points links of a page to them.

mkdocs calls these functions (mkdocs.yml, ``hooks``); the package has nothing to do with them.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = (
    'CONTRIBUTING.md',
    'benchmarks/README.md',
    'benchmarks/bccd.jpg',
    'benchmarks/end2end_d0.json',
)
_LINK = re.compile(r'(?<=\]\()([^)#\s]+)')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of other folders, and notebooks as pages."""
    for name in ELSEWHERE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for path in sorted((ROOT / 'docs').glob('*.ipynb')):
        page = notebook_page(json.loads(path.read_text(encoding='utf-8')))
        files.append(File.generated(config, f'{path.stem}.md', content=page))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the text with its links as the site has them: docs/ is its root."""
    name = page.file.src_uri
    folder = (Path(name) if name in ELSEWHERE else Path('docs', name)).parent
    up = '../' * name.count('/')

    def on_site(link: re.Match[str]) -> str:
        if '://' in link[1] or link[1].startswith('data:'):
            return link[1]
        target = (ROOT / folder / link[1]).resolve().relative_to(ROOT).as_posix()
        target = target.removeprefix('docs/').replace('.ipynb', '.md')
        return up + target

    return _LINK.sub(on_site, markdown)


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a notebook's cells and outputs as Markdown."""
    return '\n\n'.join(part for cell in notebook['cells'] for part in _cell(cell))


def _cell(cell: dict[str, Any]) -> list[str]:
    text = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown':
        return [text]
    parts = [f'```python\n{text}\n```']
    for output in cell.get('outputs', []):
        data = output.get('data', {})
        image = next((kind for kind in data if kind.startswith('image/')), None)
        said = ''.join(output.get('text', data.get('text/plain', '')))
        if image:
            content = ''.join(data[image]).replace('\n', '')
            parts.append(f'![output](data:{image};base64,{content})')
        elif said:
            parts.append(f'```text\n{said.rstrip()}\n```')
    return parts
