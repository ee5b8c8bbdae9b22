#!/usr/bin/env python3
"""Run a notebook's cells in order and keep their outputs, small; without Jupyter.

    .venv/bin/python docs/run_notebook.py docs/tutorial.ipynb

Lines of progress and of the log are left out; images are JPEG, at most 640 pixels wide.
"""

import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

_WIDTH, _QUALITY = 640, 75
_MOST_LINES = 40  # of one cell
# What a reader does not need: lines of the log and of pycocotools, and where files lay here.
_NOISE = re.compile(
    r'\d\d/\d\d \d\d:|Epoch\(|Done \(t=|index created|.*(index|memory|results|evaluation)\.\.\.'
)


def run(cells: list[dict[str, Any]], changes: Mapping[str, str] | None = None) -> None:
    """Run code cells in one namespace and write what they print and display into them.

    Args:
        cells: Of the notebook.
        changes: Texts that replace others in the sources while they run, to make them short.
    """
    shown: list[dict[str, Any]] = []
    names: dict[str, Any] = {'__name__': '__main__', 'display': lambda x: shown.append(_image(x))}
    for cell in (one for one in cells if one['cell_type'] == 'code'):
        source = ''.join(cell['source'])
        for old, new in (changes or {}).items():
            source = source.replace(old, new)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(source, '<notebook>', 'exec'), names)
        lines = [line for line in printed.getvalue().splitlines() if not _NOISE.match(line)]
        if len(lines) > _MOST_LINES:
            half = _MOST_LINES // 2
            lines = [*lines[:half], '…', *lines[-half:]]
        text = '\n'.join(lines).replace(f'{Path.cwd()}/', '')
        stream = dict(output_type='stream', name='stdout', text=f'{text.rstrip()}\n')
        cell['outputs'] = [*([stream] if text.strip() else []), *shown]
        shown.clear()


def _image(image: Image.Image) -> dict[str, Any]:
    """Return an output with an image."""
    image = image.convert('RGB')
    image.thumbnail((_WIDTH, 10 * _WIDTH))
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=_QUALITY)
    data = {'image/jpeg': base64.b64encode(file.getvalue()).decode()}
    return dict(output_type='display_data', data=data, metadata={})


def main() -> None:
    """Run the notebook of the command line and write it again."""
    path = Path(sys.argv[1]).resolve()
    notebook = json.loads(path.read_text(encoding='utf-8'))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        warnings.simplefilter('ignore')
        run(notebook['cells'])
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
