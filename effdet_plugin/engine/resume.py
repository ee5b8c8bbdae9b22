"""Which checkpoint a run goes on from: the newest whole one."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile, is_zipfile

from mmengine.logging import print_log

from effdet_plugin.engine.checkpoint import LAST
from effdet_plugin.errors import CheckpointError
from effdet_plugin.files import load_weights_only

_TRAINING_STATE = {'meta', 'state_dict', 'optimizer', 'message_hub'}
_NUMBERED = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


def find_resume(work_dir: Path | str) -> Path | None:
    """Return the newest whole checkpoint of a run, to go on from; None if there is none.

    A file that cannot be used is passed over with a line in the log.

    Args:
        work_dir: Folder of the run.
    """
    for path in _candidates(Path(work_dir)):
        try:
            check_resumable(path)
        except CheckpointError as error:
            print_log(f'Passing over {error}', logger='current', level=logging.WARNING)
        else:
            return path
    return None


def check_resumable(path: Path | str) -> None:
    """Check that a run can go on from a checkpoint.

    Args:
        path: File of ``torch.save``.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or holds no training's state.
    """
    missing = _TRAINING_STATE - load_weights_only(path).keys()
    if missing:
        raise CheckpointError(
            f'{path}: holds weights only ({", ".join(sorted(missing))} missing): begin a new run '
            f'from it by --cfg-options load_from={path}'
        )
    # PyTorch writes checksums and does not look at them. Its oldest format has none.
    if is_zipfile(path):
        with ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise CheckpointError(f'{path}: damaged (checksum of {damaged})')


def _candidates(work_dir: Path) -> list[Path]:
    """Checkpoints of a run, in the order in which to try them.

    First what was written after the note of the last one (the process was stopped in between), then
    what the note names, then older ones. A folder may hold files of an earlier, longer run: a
    number above the note's is newer only if the file is, too.
    """
    note = work_dir / LAST
    last = Path(note.read_text().strip()) if note.is_file() else None
    found = sorted(numbered_checkpoints(work_dir), key=_number, reverse=True)
    if last is None:
        return found
    if not found:  # written elsewhere by the hook's `out_dir`
        found = sorted(numbered_checkpoints(last.parent), key=_number, reverse=True)
    target = next((path for path in found if path.name == last.name), work_dir / last.name)
    later = [path for path in found if _number(path) > _number(target)]
    unnoted = [path for path in later if path.stat().st_mtime > note.stat().st_mtime]
    older = [path for path in found if path != target and path not in later]
    return [*unnoted, target, *older]


def numbered_checkpoints(folder: Path) -> Iterator[Path]:
    """Yield the checkpoints of single epochs (or iterations) in a folder."""
    return (path for path in folder.glob('*.pth') if _NUMBERED.fullmatch(path.name))


def _number(path: Path) -> int:
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else -1
