"""torchrun, but a process that was killed is one line; started by dist_run.sh."""

import logging
import os
import signal
import sys
from pathlib import Path

EXIT_USER_ERROR = 2
EXIT_LOST = 3  # of a process that has lost another one (effdet_plugin/training/running.py)


def main() -> int:
    """Run several processes; return the exit code of the one that has failed."""
    sys.path.remove(str(Path(__file__).resolve().parent))  # the tools have common names
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ['EFFDET_TORCHRUN'] = str(os.getpid())  # its processes end with it, see _bootstrap.py
    # Of a process that has ended, torchrun prints a table and its own traceback.
    logging.disable(logging.ERROR)
    try:
        run.run(run.parse_args(None))
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        causes = {rank: f for rank, f in error.failures.items() if f.exitcode != EXIT_LOST}
        rank, first = min(
            (causes or error.failures).items(), key=lambda failure: failure[1].timestamp
        )
        if first.exitcode >= 0:  # it has said why
            return int(first.exitcode)
        name = signal.Signals(-first.exitcode).name
        print(
            f'error: process {rank} was ended by {name}, so the others were stopped; if nobody '
            'sent it, memory may be short; continue a training by --resume, an inference by the '
            'same command',
            file=sys.stderr,
        )
        return EXIT_USER_ERROR
    return 0


if __name__ == '__main__':
    sys.exit(main())
