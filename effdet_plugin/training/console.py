"""What a training writes to the console: plain lines and one bar; the log file has everything."""

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.runner import Runner
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.engine.hooks import ProgressBarHook

# mmengine warns of its own calls, about which nobody who trains can do anything.
_NOISE = re.compile(
    r'"FileClient" will be deprecated|"HardDiskBackend" is the alias|'
    r'Please make sure that the mlflow server is running'  # also of a file, which needs none
)
# Lines of mmengine that the console has in our words, or in none.
_REPLACED = re.compile(
    r'Exp name: |Epoch\(val\)|Iter\(val\)|Parameter group of |Epoch\(test\) +\[(\d+)/\1\]|'
    r'Saving checkpoint at |Checkpoints will be saved|The best checkpoint with |'
    r'The previous best checkpoint |'
    r'\d+ images, \d+ detections, |\w+ starts from ImageNet weights '
)
_STEPS = re.compile(r'(Epoch|Iter)\(train\)')  # one of them every some steps


@contextmanager
def without_noise(runner: Runner) -> Iterator[None]:
    """Leave mmengine's deprecations out, of the console and of the log file."""
    noise, handlers = _Pattern(_NOISE), [*runner.logger.handlers]
    for handler in handlers:
        handler.addFilter(noise)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(noise)


@contextmanager
def plain_console(runner: Runner, with_bar: bool = True) -> Iterator[None]:
    """Show plain lines while a training runs, and a bar in place of a line every some steps.

    The bar is for a terminal: in a file, or through a pipe, mmengine's lines say the same. A
    console that shows errors only stays as it is.

    Args:
        runner: Built, not yet running.
        with_bar: False: lines only, as for an evaluation.
    """
    handlers = [one for one in runner.logger.handlers if _is_console(one)]
    if not handlers or handlers[0].level > logging.INFO:
        yield
        return
    has_bar = with_bar and sys.stderr.isatty() and sys.stdout.isatty()
    if has_bar:
        runner.register_hook(ProgressBarHook(interval=None))
    before = [(one, one.formatter, one.stream) for one in handlers]
    shown = [_Pattern(_REPLACED), *([_Pattern(_STEPS)] if has_bar else [])]
    for handler in handlers:
        handler.setFormatter(_Plain())
        handler.setStream(_AboveTheBar())
        for one in shown:
            handler.addFilter(one)
    try:
        yield
    finally:
        for handler, formatter, stream in before:
            handler.setFormatter(formatter)
            handler.setStream(stream)
            for one in shown:
                handler.removeFilter(one)
        for hook in runner.hooks:  # an interrupted training leaves it open
            if isinstance(hook, ProgressBarHook) and hook.bar is not None:
                hook.bar.close()


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(
        handler, logging.FileHandler
    )


class _Pattern(logging.Filter):
    """Drops records whose text begins with a pattern."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        super().__init__()
        self.pattern = pattern

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept."""
        return not self.pattern.match(record.getMessage().lstrip())


class _Plain(logging.Formatter):
    """Shows the text alone, with its level from a warning on."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = record.getMessage()
        return text if record.levelno < logging.WARNING else f'{record.levelname}: {text}'


class _AboveTheBar(io.TextIOBase):
    """A stream to stdout whose lines stand above a bar that is open.

    It is the stdout of now: lines are shown, too, while the prints of others are not.
    """

    def __init__(self) -> None:
        self._stdout = sys.stdout

    def write(self, text: str) -> int:
        """Write some text."""
        tqdm.write(text, file=self._stdout, end='')
        return len(text)

    def flush(self) -> None:
        """Flush stdout."""
        self._stdout.flush()
