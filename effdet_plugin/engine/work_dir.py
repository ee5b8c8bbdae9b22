"""Whether a folder may be used for a run: two runs in one are refused."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from effdet_plugin.engine.checkpoint import LAST
from effdet_plugin.engine.resume import numbered_checkpoints
from effdet_plugin.errors import UserError

# What may differ between two configs of one run.
_VOLATILE = ('work_dir', 'resume', 'load_from', 'launcher')
_DUMPED_CALLS = ('dict', 'float', 'set', 'tuple')


def check_work_dir(work_dir: Path | str, cfg: Config) -> None:
    """Refuse to begin a run where another one is: two are never mixed in one folder.

    A run of the same config is refused, too, once it has left a checkpoint: file by file it would
    be overwritten, its best one would stay beside the new run's, and a ``--resume`` of the new run
    could go on from the old one's last.

    Args:
        work_dir: Folder of the run to come; nothing is changed there.
        cfg: Its config, complete.

    Raises:
        UserError: The folder holds a run.
    """
    work_dir = Path(work_dir)
    if not _holds_run(work_dir):
        return
    difference = _difference(work_dir, cfg)
    if difference or any(_checkpoints(work_dir)):
        found = f'a run of another config ({difference})' if difference else 'a run'
        raise UserError(
            f'{work_dir} holds {found}; go on with it by --resume, replace it by --overwrite, or '
            'choose another --work-dir'
        )


def remove_run(work_dir: Path | str) -> None:
    """Remove a run's checkpoints, so that nothing takes them for those of the run to come.

    Args:
        work_dir: Folder of the run. Its logs, and files that a run does not write, stay.
    """
    for path in [*_checkpoints(Path(work_dir)), Path(work_dir) / LAST]:
        path.unlink(missing_ok=True)


def _holds_run(work_dir: Path) -> bool:
    """Whether a training has left something there that is worth keeping."""
    logs = (path for path in work_dir.glob('*/vis_data/*.json') if path.stat().st_size)
    return any(work_dir.glob('*.pth')) or any(logs)


def _checkpoints(work_dir: Path) -> list[Path]:
    return [*numbered_checkpoints(work_dir), *work_dir.glob('best_*.pth')]


def _difference(work_dir: Path, cfg: Config) -> str:
    """Say where a folder's run has another config; empty if it has not, or has left none."""
    other = _newest_dump(work_dir)
    if other is None:
        return ''
    dumped = Config.fromfile(other, import_custom_modules=False)
    difference = _first_difference(_comparable(dumped), _comparable(cfg))
    return difference and f'{other.name}: {difference}'


def _newest_dump(work_dir: Path) -> Path | None:
    """The config that the folder's last run has written there."""
    newest_first = sorted(
        work_dir.glob('*.py'), key=lambda path: path.stat().st_mtime, reverse=True
    )
    return next((path for path in newest_first if _is_dump(path)), None)


def _is_dump(path: Path) -> bool:
    """Whether a file has nothing but assignments of values: reading a config runs it."""
    try:
        tree = ast.parse(path.read_text(encoding='utf-8'))
    except (SyntaxError, ValueError):
        return False
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return (
        all(isinstance(node, ast.Assign) for node in tree.body)
        and all(isinstance(func, ast.Name) and func.id in _DUMPED_CALLS for func in calls)
        and any(name.id == 'model' for name in ast.walk(tree) if isinstance(name, ast.Name))
    )


def _comparable(value: Any) -> Any:
    """A config as plain types; a dumped and reloaded one may have tuples where lists were."""
    if isinstance(value, Config):
        items = value.to_dict().items()
        return {k: _comparable(v) for k, v in items if k not in _VOLATILE}
    if isinstance(value, Mapping):
        return {str(key): _comparable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(item) for item in value]
    return value


def _first_difference(there: Any, here: Any, name: str = '') -> str:
    """Name the first place where two plain values differ; empty if they are equal."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            inner = f'{name}.{key}' if name else key
            if key not in here or key not in there:
                return f'{inner} stands in one of them only'
            if difference := _first_difference(there[key], here[key], inner):
                return difference
        return ''
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = enumerate(zip(there, here, strict=True))
        found = (_first_difference(a, b, f'{name}[{i}]') for i, (a, b) in pairs)
        return next(filter(None, found), '')
    if there == here:
        return ''
    return f'{name} is {_short(there)} there and {_short(here)} here'


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f'{text[:37]}...'
