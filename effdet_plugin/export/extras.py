"""Packages of formats, imported when they are needed; a missing one names its extra."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any

from effdet_plugin.errors import InstallError


def need(package: str, extra: str) -> Any:
    """Import a package of an extra.

    Args:
        package: Name of its import.
        extra: Of this package's ``setup.py``.

    Raises:
        InstallError: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise InstallError(
            f'{package.split(".")[0]} cannot be imported ({str(error).splitlines()[0]}): '
            f"pip install 'effdet_plugin[{extra}]'"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the progress bars, log lines and warnings of a converter; errors are raised as ever."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            with redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(level)
