"""How a command starts and ends: exit codes, one line for a mistake, no weights that run code."""

import os
import select
import sys
from collections.abc import Callable

from effdet_plugin.errors import UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def run(main: Callable[[], object]) -> None:
    """Run a command and exit with its exit code.

    A :class:`effdet_plugin.errors.UserError` is printed as ``error: <its line>`` on stderr, with
    exit code 2; a closed pipe (``| head``) and Ctrl-C print nothing. Other exceptions are raised.

    Args:
        main: The command; an int that it returns is the exit code, anything else means 0.
    """
    _load_weights_only()
    try:
        result = main()
        sys.stdout.flush()  # a closed pipe raises its error here, inside the try
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        if not _nobody_reads():  # the pipe to another process
            raise
        # Python flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except UserError as error:
        sys.exit(fail(str(error)))
    sys.exit(result if isinstance(result, int) else 0)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose other end is closed."""
    if not hasattr(select, 'poll'):  # Windows
        return True
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


def fail(message: str) -> int:
    """Print ``error: message`` on stderr and return the exit code of user errors."""
    print(f'error: {message}', file=sys.stderr)
    return EXIT_USER_ERROR


def _load_weights_only() -> None:
    """Set PyTorch's switch, for this process and its workers, that no load of weights runs code."""
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
