"""Runs one mutant after the other and notes what comes of it, its time and its memory."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from effdet_plugin.errors import UserError

Action = Callable[[], object]
# Writes a mutant into an empty folder; what it returns reads the mutant.
Maker = Callable[[Path, random.Random], Action]
SECONDS, MEGABYTES = 10.0, 1000.0


class Trial(NamedTuple):
    """What came of a mutant.

    Attributes:
        name: Kind and number, from which it can be made once more.
        outcome: ``read``, ``refused``, or what else was raised.
        seconds: CPU time of this process: the wall's would be that of a busy machine.
        megabytes: Largest memory above that before.
    """

    name: str
    outcome: str
    seconds: float
    megabytes: float

    @property
    def fault(self) -> str:
        """What is wrong with it, '' if nothing."""
        wrong = self.outcome if self.outcome not in ('read', 'refused') else ''
        if self.seconds > SECONDS or self.megabytes > MEGABYTES:
            wrong += f' {self.seconds:.1f} s, {self.megabytes:.0f} MB'
        return f'{self.name}: {wrong.strip()}' if wrong else ''


def try_mutant(kind: str, make: Maker, number: int, folder: Path) -> Trial:
    """Make a mutant in a new folder, read it, and remove the folder."""
    name = f'{kind}:{number}'
    folder = folder / str(number)
    folder.mkdir()
    action = make(folder, random.Random(name))
    Path('/proc/self/clear_refs').write_text('5')  # forgets the largest memory so far
    before, start = _memory('VmRSS'), time.process_time()
    try:
        action()
        outcome = 'read'
    except UserError as error:
        outcome = _refused(str(error))
    except Exception as error:
        outcome = f'{type(error).__name__}: {error}'
    seconds = time.process_time() - start
    trial = Trial(name, outcome, seconds, _memory('VmHWM') - before)
    shutil.rmtree(folder)
    return trial


def _refused(line: str) -> str:
    """Return ``refused`` for one printable line of bounded length, else what is wrong with it."""
    if '\n' in line or not line.isprintable():
        return f'a line with control characters: {line!r}'
    return 'refused' if 0 < len(line) < 1500 else f'a line of {len(line)} characters'


def _memory(field: str) -> float:
    """Memory of this process in MB by a field of /proc: now (VmRSS), or at most (VmHWM)."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1000
