"""What the tests share: where the oracle and the sample data are, and random boxes.

The oracle are numbers that the reference itself computed. All of them lie in a folder beside the
repository, or where ``EFFDET_ORACLE`` says; the small ones also in ``tests/data/oracle``, so that
most of the ladder stands for people who have only the repository.
"""

import importlib.util
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL_ORACLE = REPOSITORY / 'tests' / 'data' / 'oracle'


def shared_dir() -> Path | None:
    """The folder of sample data and oracle: ``EFFDET_SHARED``, or ``../shared``; None without."""
    path = Path(os.environ.get('EFFDET_SHARED', REPOSITORY.parent / 'shared'))
    return path if path.is_dir() else None


def oracle_dir() -> Path:
    """The whole oracle where it is (``EFFDET_ORACLE``, or in the shared folder), else our copy."""
    shared = shared_dir()
    default = shared / 'oracle' if shared else SMALL_ORACLE
    path = Path(os.environ.get('EFFDET_ORACLE', default))
    return path if path.is_dir() else SMALL_ORACLE


def oracle_file(name: str) -> Path:
    """A file of the oracle; skips the running test where it is not to be had.

    Args:
        name: file name with its suffix, ``'parameters.json'``.
    """
    import pytest

    for folder in (oracle_dir(), SMALL_ORACLE):
        if (folder / name).exists():
            return folder / name
    return pytest.skip(f'{name} is not in {oracle_dir()}; EFFDET_ORACLE names the whole oracle')


def load_oracle(name: str) -> Mapping[str, np.ndarray]:
    """The arrays of ``NAME.npz``; skips the running test where it is not to be had.

    Args:
        name: without suffix, ``'bifpn_cell'``. Big tensors are stored as samples: compare by
            ``oracle_io().compare(arrays, key, tensor)``.
    """
    return np.load(oracle_file(f'{name}.npz'))


def shared_data(name: str) -> Path:
    """A folder or file of the sample data; skips the running test where it is not to be had.

    Args:
        name: below ``data``, ``'coco_val_mini'``.
    """
    import pytest

    shared = shared_dir()
    if shared is None or not (shared / 'data' / name).exists():
        return pytest.skip(f'sample data {name} is not here; EFFDET_SHARED names its folder')
    return shared / 'data' / name


def recipe() -> Any:
    """The module that makes the oracle's weights and pictures: ``recipe().value(model, name, …)``.

    Kernels come in TensorFlow's layout, pictures as NHWC.
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


def random_boxes(number: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Boxes (number, 4) xyxy in pixels, inside ``size`` (height, width), no side below a pixel."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    sides = 1 + torch.rand(number, 2, generator=generator) * (extent - 1)
    low = torch.rand(number, 2, generator=generator) * (extent - sides)
    return torch.cat([low, low + sides], dim=1)
