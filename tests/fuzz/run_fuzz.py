"""Tries many mutants of every kind and prints a table: ``python tests/fuzz/run_fuzz.py 500``.

A number behind a kind (``--only png:17``) tries one mutant again. The exit code is 1 where one was
neither read nor refused in a line, or went over the bounds of CPU time or memory. ``--first`` goes
behind the mutants of an earlier run: a long one in pieces loses nothing when it is stopped.
"""

import argparse
import faulthandler
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    *map(str, (HERE.parents[1], HERE, HERE.parent, HERE.parent / 'own_data')),
    str(HERE.parent / 'convert'),
]

import torch  # noqa: E402
from fuzz_kinds import KINDS  # noqa: E402
from measure import Trial, try_mutant  # noqa: E402

HANGS_AFTER = 120  # seconds


def run(kind: str, numbers: range, folder: Path) -> list[Trial]:
    """Try mutants of one kind; the first, which imports what is needed, is tried twice."""
    try_mutant(kind, KINDS[kind], numbers[0], folder)
    trials = []
    for number in numbers:
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        trial = try_mutant(kind, KINDS[kind], number, folder)
        if trial.fault:
            print(trial.fault[:400], flush=True)
        trials.append(trial)
    faulthandler.cancel_dump_traceback_later()
    return trials


def main() -> int:
    """Parse the arguments, try the mutants, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('count', type=int, nargs='?', default=100, help='mutants of each kind')
    parser.add_argument('--first', type=int, default=0, help='number of the first mutant')
    parser.add_argument('--only', nargs='*', default=list(KINDS), help='KIND or KIND:NUMBER')
    arguments = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    table, faults = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            kind, _, number = name.partition(':')
            first = int(number or arguments.first)
            numbers = range(first, first + (1 if number else arguments.count))
            start = time.perf_counter()
            trials = run(kind, numbers, Path(folder))
            outcomes = [trial.outcome for trial in trials]
            wrong = sum(bool(trial.fault) for trial in trials)
            faults += wrong
            table.append(
                f'| {kind} | {len(trials)} | {outcomes.count("read")} | '
                f'{outcomes.count("refused")} | {wrong} | {max(t.seconds for t in trials):.2f} | '
                f'{max(t.megabytes for t in trials):.0f} | {time.perf_counter() - start:.0f} |'
            )
            print(table[-1], flush=True)
    head = '| kind | mutants | read | refused | wrong | worst CPU s | worst MB | all s |'
    print('\n'.join(['', head, '|---' * 8 + '|', *table]))
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
