"""The run of a work dir: what resumes it, whether that fits, and whether another may start."""

import json
import logging
import re
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from effdet_plugin.engine.checkpoint import INTERRUPTED, LAST, OPTIMIZER, first_bad_state
from effdet_plugin.errors import CheckpointError, UserError
from effdet_plugin.files import read_json, write_atomically
from effdet_plugin.weights_only import check_compatible, load_weights_only, weights_of

CONFIG = 'config.json'  # a run's config as plain data, beside mmengine's dump, which is code
_TRAINING_STATE = {'meta', 'state_dict', 'optimizer', 'message_hub'}
_NUMBERED = re.compile(r'(?:epoch|iter)_(\d+)\.pth')
_PATH_BYTES, _NAME_BYTES = 4096, 256  # longest path and part of it (limits.h of Linux)
# May differ between configs of one run; the last: another start where a file was not found.
_VOLATILE = {'work_dir', 'resume', 'load_from', 'launcher', 'model.backbone.pretrained'}
_SWITCHES = {  # of the implementation, which differ between versions of torch
    'foreach', 'maximize', 'capturable', 'differentiable', 'fused', 'decoupled_weight_decay',
}  # fmt: skip
_ADVICE = 'resume with the config it was trained with'


def find_resume(work_dir: Path | str, log: bool = True) -> Path | None:
    """Return the newest undamaged checkpoint of a run to resume from; None if there is none.

    Args:
        work_dir: Folder of the run.
        log: Write a line for each file that cannot be used and is skipped.
    """
    found = newest_resumable(work_dir, log)
    return None if found is None else found.path


@dataclass
class Resumable:
    """A checkpoint that was read to be checked, kept for the runner.

    Attributes:
        path: The file.
        skipped: One line for each newer file that cannot be used.
    """

    path: Path
    skipped: list[str]
    _content: dict[str, Any] | None

    @property
    def checkpoint(self) -> dict[str, Any]:
        """Its content, until it is taken."""
        assert self._content is not None
        return self._content

    def take(self) -> dict[str, Any] | None:
        """Return the content and forget it: a training must not hold it to its end."""
        content, self._content = self._content, None
        return content


def newest_resumable(work_dir: Path | str, log: bool = True) -> Resumable | None:
    """Return the checkpoint that `find_resume` finds, with its content."""
    skipped: list[str] = []
    for path in _candidates(Path(work_dir)):
        try:
            return Resumable(path, skipped, check_resumable(path))
        except CheckpointError as error:
            skipped.append(f'Skipping {error}')
            if log:
                print_log(skipped[-1], logger='current', level=logging.WARNING)
    return None


def check_resumable(path: Path | str) -> dict[str, Any]:
    """Check that a run can be resumed from a checkpoint.

    Args:
        path: File of ``torch.save``.

    Returns:
        The checkpoint.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or holds no training state.
    """
    checkpoint = load_weights_only(path)
    if name := first_bad_state(checkpoint):
        raise CheckpointError(
            f'{path}: {name} is NaN or infinite: resume from an earlier checkpoint'
        )
    missing = _TRAINING_STATE - checkpoint.keys()
    if missing:
        raise CheckpointError(
            f'{path}: holds weights only ({", ".join(sorted(missing))} missing): start a new run '
            f'from it by --cfg-options load_from={path}'
        )
    # PyTorch writes checksums and never checks them. Its oldest format has none.
    if is_zipfile(path):
        with ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise CheckpointError(f'{path}: damaged (checksum of {damaged})')
    return checkpoint


def _candidates(work_dir: Path) -> list[Path]:
    """Return the checkpoints of a run in the order in which to try them.

    First those written after ``last_checkpoint`` (the process was stopped in between), then the one
    that it names, then older ones. A folder may hold files of an earlier, longer run: a file with a
    higher number is newer only if its time is, too; else it comes last. A ``last_checkpoint`` of no
    use, or of another folder, leaves the numbers to decide.
    """
    found = _numbered_checkpoints(work_dir)
    last = _named_checkpoint(work_dir)
    if last is None:
        return found
    if not found:  # written to another folder by the hook's `out_dir`
        found = _numbered_checkpoints(last.parent)
        if not found:  # named by another `filename_tmpl`
            return [last if last.is_file() else work_dir / last.name]
    elif last.is_file() and last.parent.resolve() != work_dir.resolve():
        return found
    target = next((path for path in found if path.name == last.name), work_dir / last.name)
    written = (work_dir / LAST).stat().st_mtime
    higher = [path for path in found if _number(path) > _number(target)]
    newer = [path for path in higher if path.stat().st_mtime > written]
    older = [path for path in found if path != target and path not in higher]
    return [*newer, target, *older, *(path for path in higher if path not in newer)]


def _named_checkpoint(work_dir: Path) -> Path | None:
    """Return the checkpoint that ``last_checkpoint`` names; None if it names none."""
    pointer = work_dir / LAST
    if not pointer.is_file():
        return None
    # At most a path: the file may be anything.
    with pointer.open('rb') as file:
        name = file.read(_PATH_BYTES).decode(errors='replace').strip()
    is_name = name.endswith('.pth') and name.isprintable() and len(name.encode()) < _PATH_BYTES
    # The system refuses to look up longer parts.
    is_name = is_name and max(len(part.encode()) for part in Path(name).parts) < _NAME_BYTES
    return Path(name) if is_name else None


def _numbered_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of single epochs (or iterations) in a folder, highest number first."""
    found = (path for path in folder.glob('*.pth') if _NUMBERED.fullmatch(path.name))
    return sorted(found, key=_number, reverse=True)


def _number(path: Path) -> int:
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else -1


def write_config(work_dir: Path | str, cfg: Config) -> None:
    """Write the config of a run as plain data, for `check_work_dir` of a later run.

    Args:
        work_dir: Folder of the run.
        cfg: Its complete config.
    """
    text = json.dumps(cfg.to_dict(), indent=1, default=str)
    write_atomically(Path(work_dir) / CONFIG, f'{text}\n')


def check_work_dir(work_dir: Path | str, cfg: Config) -> None:
    """Refuse to start a run in the folder of another one: two are never mixed.

    A run of the same config is refused, too, once it has written a checkpoint: its files would be
    overwritten one by one, its best one would stay beside the new run's, and ``--resume`` of the
    new run could take the old one's last checkpoint.

    Args:
        work_dir: Folder of the run to come; nothing is changed there.
        cfg: Its complete config.

    Raises:
        UserError: The folder holds a run.
    """
    work_dir = Path(work_dir)
    # An empty log is of a run that stopped before its first line.
    logs = (path for path in work_dir.glob('*/vis_data/*.json') if path.stat().st_size)
    if not any(work_dir.glob('*.pth')) and not any(logs):
        return
    difference = _difference(work_dir / CONFIG, cfg)
    # A run without a checkpoint, of the same config, has left nothing that a new one could damage.
    if difference or _checkpoints(work_dir):
        found = f'a run of another config ({difference})' if difference else 'a run'
        raise UserError(
            f'{work_dir} holds {found}; continue it by --resume, replace it by --overwrite, or '
            'choose another --name or --work-dir'
        )


def remove_run(work_dir: Path | str) -> None:
    """Remove a run's checkpoints and best detections: the run to come could take them for its own.

    Args:
        work_dir: Folder of the run. Its logs, and files that a run does not write, stay.
    """
    folder = Path(work_dir)
    for path in [*_checkpoints(folder), folder / LAST, *folder.glob('best_*.npz')]:
        path.unlink(missing_ok=True)


def _checkpoints(work_dir: Path) -> list[Path]:
    others = (*work_dir.glob('best_*.pth'), *work_dir.glob(INTERRUPTED))
    return [*_numbered_checkpoints(work_dir), *others]


def _difference(path: Path, cfg: Config) -> str:
    """Return the first difference between a written config and another; empty if there is none."""
    if not path.is_file():
        return ''
    try:
        there = dict(_flatten(read_json(path)))
    except UserError:
        return f'{path.name} cannot be read'
    # Through json, so that tuples become lists as they did in the file.
    here = dict(_flatten(json.loads(json.dumps(cfg.to_dict(), default=str))))
    for name in sorted(there.keys() | here.keys()):  # all processes name the same key
        is_volatile = not _VOLATILE.isdisjoint({name, name.split('.')[0]})
        if there.get(name, ...) != here.get(name, ...) and not is_volatile:
            old, new = (reprlib.repr(c[name]) if name in c else 'absent' for c in (there, here))
            return f'{path.name}: {name} is {old} there and {new} here'
    return ''


def _flatten(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dicts and lists, each with its name, e.g. ``hooks[0].type``."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flatten(item, f'{name}.{key}' if name else key)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _flatten(item, f'{name}[{index}]')
    else:
        yield name, value


def check_continues(
    path: Path | str,
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    wrapper: OptimWrapper,
    has_average: bool,
) -> None:
    """Refuse to resume a training with another network, optimizer or without its moving average.

    mmengine keeps initial values where tensors do not fit, ends in a traceback where groups do not,
    and trains the average on where nothing averages.

    Args:
        path: The file, for the line.
        checkpoint: Its content; see `effdet_plugin.engine.resume.check_resumable`.
        model: Network of the config, not wrapped.
        wrapper: Its optimizer; a dict of several is not checked.
        has_average: Whether a hook of the config keeps a moving average of the weights.

    Raises:
        CheckpointError: One line that says what differs.
    """
    try:
        weights, own = weights_of(checkpoint), model.state_dict()
        check_compatible(weights, own, complete=True)
        if unused := sorted(weights.keys() - own.keys()):
            raise CheckpointError(
                f'{len(unused)} tensors of the checkpoint are not in the network of the config, '
                f'e.g. {unused[0]}: {_ADVICE}'
            )
        if name := first_bad_state(checkpoint):
            raise CheckpointError(f'{name} is NaN or infinite: resume from an earlier checkpoint')
        _check_average(checkpoint, has_average)
        _check_optimizer(checkpoint, wrapper)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None


def _check_average(checkpoint: Mapping[str, Any], has_average: bool) -> None:
    if 'ema_state_dict' in checkpoint and not has_average:
        raise CheckpointError(
            'the checkpoint was trained with a moving average of the weights, for which the config '
            f'has no hook (RampUpEMAHook, EMAHook): {_ADVICE}, or start a new run from it by '
            'load_from'
        )


def _check_optimizer(checkpoint: Mapping[str, Any], wrapper: OptimWrapper) -> None:
    optimizer = getattr(wrapper, 'optimizer', None)
    saved = checkpoint.get('optimizer') or {}
    if optimizer is None or 'param_groups' not in saved:
        return
    name = checkpoint['meta'].get(OPTIMIZER)
    own = type(optimizer).__name__
    if name not in (None, own):
        raise CheckpointError(f'the optimizer of the checkpoint is {name}, not {own}: {_ADVICE}')
    unknown = optimizer.defaults.keys() - saved['param_groups'][0].keys() - _SWITCHES
    if name is None and unknown:
        raise CheckpointError(
            f'the optimizer of the checkpoint has no {min(unknown)}, so it was not {own}: {_ADVICE}'
        )
    there, here = (
        [len(group['params']) for group in groups]
        for groups in (saved['param_groups'], optimizer.param_groups)
    )
    if there != here:
        raise CheckpointError(
            f'the optimizer of the checkpoint has {sum(there)} parameters in {len(there)} groups, '
            f'that of the config {sum(here)} in {len(here)} (frozen layers, paramwise_cfg): '
            f'{_ADVICE}'
        )
    # torch does not compare them, and gives the momentum of one parameter to another.
    own_parameters = [value for group in optimizer.param_groups for value in group['params']]
    for place, parameter in enumerate(own_parameters):
        state = saved.get('state', {}).get(place) or {}
        shapes = {
            value.shape for value in state.values() if isinstance(value, Tensor) and value.dim()
        }
        if shapes - {parameter.shape}:
            raise CheckpointError(
                f'the optimizer of the checkpoint has other parameters than that of the config '
                f'(number {place} is {list(shapes.pop())} there and {list(parameter.shape)} here; '
                f'frozen layers, paramwise_cfg): {_ADVICE}'
            )
    _tell_settings(saved['param_groups'], optimizer.param_groups)


def _tell_settings(there: Any, here: Any) -> None:
    """Say which settings of the config do not count: torch takes the checkpoint's."""
    for place, (old, new) in enumerate(zip(there, here, strict=True)):
        for key in sorted(old.keys() & new.keys() - _SWITCHES - {'params', 'lr', 'initial_lr'}):
            if old[key] != new[key]:
                print_log(
                    f'group {place} of the optimizer keeps {key}={old[key]!r} of the checkpoint; '
                    f"the config's {new[key]!r} is not used",
                    logger='current',
                    level=logging.WARNING,
                )
