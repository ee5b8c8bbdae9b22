"""What the tests share: paths of the repository, the oracle and the sample data; random boxes.

The oracle is a set of arrays that the reference (google/automl, efficientdet/) computed. All of it
is in a folder beside the repository, or where ``EFFDET_ORACLE`` points; the small files are also in
``tests/data/oracle``, so that most parity tests run with the repository alone.
"""

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL_ORACLE = REPOSITORY / 'tests' / 'data' / 'oracle'


def shared_dir() -> Path | None:
    """The folder of sample data and oracle: ``EFFDET_SHARED``, or ``../shared``; None if absent."""
    path = Path(os.environ.get('EFFDET_SHARED', REPOSITORY.parent / 'shared'))
    return path if path.is_dir() else None


def oracle_dir() -> Path:
    """The full oracle (``EFFDET_ORACLE``, or in the shared folder); our small copy if absent."""
    shared = shared_dir()
    default = shared / 'oracle' if shared else SMALL_ORACLE
    path = Path(os.environ.get('EFFDET_ORACLE', default))
    return path if path.is_dir() else SMALL_ORACLE


def oracle_file(name: str) -> Path:
    """A file of the oracle; skips the running test if it is absent.

    Args:
        name: File name with its suffix, ``'parameters.json'``.
    """
    for folder in (oracle_dir(), SMALL_ORACLE):
        if (folder / name).exists():
            return folder / name
    return pytest.skip(f'{name} is not in {oracle_dir()}; set EFFDET_ORACLE to the full oracle')


def load_oracle(name: str) -> Mapping[str, np.ndarray]:
    """The arrays of ``NAME.npz``; skips the running test if the file is absent.

    Args:
        name: Without suffix, ``'bifpn_cell'``. Large tensors are stored as samples: compare with
            ``oracle_io().compare(arrays, key, tensor)``.
    """
    return np.load(oracle_file(f'{name}.npz'))


def shared_data(name: str) -> Path:
    """A folder or file of the sample data; skips the running test if it is absent.

    Args:
        name: Below ``data``, ``'coco_val_mini'``.
    """
    shared = shared_dir()
    if shared is None or not (shared / 'data' / name).exists():
        return pytest.skip(f'sample data {name} not found; set EFFDET_SHARED to its folder')
    return shared / 'data' / name


def recipe() -> Any:
    """The module that makes the oracle's weights and images: ``recipe().value(model, name, …)``.

    Kernels are in TensorFlow's layout, images NHWC.
    """
    return _module(oracle_file('recipe.py'))


def oracle_io() -> Any:
    """The module that compares with stored samples: ``oracle_io().compare(arrays, key, array)``."""
    return _module(oracle_file('oracle_io.py'))


@cache
def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'oracle_{path.stem}', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dont_format_configs() -> None:
    """Have mmengine write the text of a config as it is: yapf is half of a tiny training's time.

    `formatting_configs` has it formatted again.
    """
    module = import_module('mmengine.config.config')
    vars(module).setdefault('_format_code', vars(module)['FormatCode'])
    vars(module)['FormatCode'] = lambda text, **_: (f'{text}\n', True)


@contextmanager
def formatting_configs() -> Iterator[None]:
    """Within it, configs are formatted as everywhere else."""
    module = vars(import_module('mmengine.config.config'))
    unformatted = module['FormatCode']
    module['FormatCode'] = module['_format_code']
    yield
    module['FormatCode'] = unformatted


def random_boxes(number: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Boxes (number, 4) xyxy in pixels, inside ``size`` (height, width), sides of at least 1 px."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = 1 + torch.rand(number, 2, generator=generator) * (extent - 1)
    low = torch.rand(number, 2, generator=generator) * (extent - sides)
    return torch.cat([low, low + sides], dim=1)
