"""Packages of formats, imported when they are needed; a missing one names its extra."""

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
