"""Packages of formats, imported when they are needed; it is said how to install missing ones."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from effdet_plugin.errors import InstallError, pip_install

# As in setup.py: by these names pip finds them, wherever this package came from.
_ONNX = ('onnx>=1.19,<2', 'onnxscript>=0.5,<1')
_RUNTIME = 'onnxruntime>=1.22,<2'
PACKAGES = {
    'onnx': (*_ONNX, _RUNTIME),
    'openvino': ('openvino>=2025.3', *_ONNX),
    'openvino-int8': ('openvino>=2025.3', *_ONNX, _RUNTIME),
    'tflite': (
        'litert-torch>=0.10,<0.11',
        'ai-edge-litert>=2.3,<3',
        'ai-edge-quantizer>=0.10,<0.11',
    ),
}
_EXTRAS = {('tensorrt', 'fp32'): 'onnx', ('openvino', 'int8'): 'openvino-int8'}  # else the format's


def check_installed(form: str, precision: str = 'fp32') -> None:
    """Check that the packages of a format are there, without importing them.

    Args:
        form: Name of the format; pt2 needs none.
        precision: Of the file.

    Raises:
        InstallError: One is missing.
    """
    extra = _EXTRAS.get((form, precision), form)
    for package in PACKAGES.get(extra, ()):
        name = package.partition('>')[0]
        if find_spec(name.replace('-', '_')) is None:
            raise InstallError(f'{name} is not installed: {_install(extra)}')


def _install(extra: str) -> str:
    # Else pip may replace a CPU build of torch, which one of LiteRT's packages asks for.
    kept = (f'torch=={torch.__version__}',) if extra == 'tflite' else ()
    return pip_install(*PACKAGES[extra], *kept)


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
        reason = str(error).splitlines()[0]
        raise InstallError(
            f'{package.split(".")[0]} cannot be imported ({reason}): {_install(extra)}'
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
