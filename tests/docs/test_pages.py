"""What the pages show runs, and their numbers are what the tools print."""

import contextlib
import io
import re
from pathlib import Path

import mmdet
import pytest
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from effdet_plugin.ablation import ablation_configs, cost_table
from effdet_plugin.config import load
from effdet_plugin.costs import count_rows, to_markdown
from support import REPOSITORY

DOCS = REPOSITORY / 'docs'
BLOCK = re.compile(r'^```python\n(# (\S+\.py)\n.*?)^```', re.MULTILINE | re.DOTALL)
MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows, by their names."""
    return {name: text for text, name in BLOCK.findall((DOCS / page).read_text())}


@pytest.mark.parametrize('name', files_of('fine_tune.md'))
def test_fine_tune__configs_are_right(name: str, tmp_path: Path) -> None:
    (tmp_path / 'configs').symlink_to(REPOSITORY / 'configs')
    path = tmp_path / name
    path.write_text(files_of('fine_tune.md')[name])
    load(path)


@pytest.mark.parametrize('page', ['fine_tune.md', 'model_maker.md'])
def test_pages__name_what_there_is(page: str) -> None:
    text = (DOCS / page).read_text()
    for path in re.findall(r'(?:configs|tools)/[\w/]+\.(?:py|sh)', text):
        assert (REPOSITORY / path).is_file(), path


@pytest.mark.skipif(not MMDET_CONFIGS.is_dir(), reason='this mmdet has no configs')
def test_use_one_part__any_config_of_mmdet(tmp_path: Path) -> None:
    text = files_of('use_one_part.md')['faster_rcnn_bifpn.py']
    path = tmp_path / 'config.py'
    path.write_text(text.replace('path/to/mmdetection/configs', str(MMDET_CONFIGS)))
    cfg = load(path)
    init_default_scope('mmdet')
    assert type(MODELS.build(cfg.model).neck).__name__ == 'BiFPN'


def test_use_one_part__from_python() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(files_of('use_one_part.md')['from_python.py'], {})
    assert printed.getvalue().count('64, ') == 6  # five maps of 64 channels; the first is 64x64
    assert '(1, 64, 4, 4)]' in printed.getvalue()


def test_use_one_part__names_every_config() -> None:
    text = (DOCS / 'use_one_part.md').read_text()
    for path in (REPOSITORY / 'configs' / 'mix').glob('*.py'):
        first, _, rest = path.name.partition('_')
        assert path.name in text or f'`{first}_…`' in text or f'`…_{rest.split("_")[1]}_…`' in text


def test_ablation__table_is_the_tools() -> None:
    table = to_markdown(cost_table(count_rows(ablation_configs(REPOSITORY))))
    assert table in (DOCS / 'ablation.md').read_text()
