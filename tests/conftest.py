"""Settings of all tests: reproducible, few threads; tests without their requirements skip."""

import ctypes
import gc
import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from command_lines import Tools
from hypothesis import HealthCheck, settings
from order import ordered

import effdet_plugin  # noqa: F401  (before any test imports mmdet)
from support import dont_format_configs

# pytest-xdist's processes, and those that their tests start, share the cores.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'
# Several processes share the cores, and small tensors gain nothing from many threads.
torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))

dont_format_configs()

_COMMON = {'deadline': None, 'suppress_health_check': [HealthCheck.too_slow]}
settings.register_profile('dev', max_examples=25, **_COMMON)
# The same examples every time, so that a failed run can be repeated elsewhere.
settings.register_profile('ci', max_examples=200, derandomize=True, **_COMMON)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'dev'))


@pytest.fixture(autouse=True, scope='session')
def _no_weights_from_outside(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test asks a server for weights, or finds what this machine keeps of earlier trainings."""
    if not os.environ.get('EFFDET_TEST_WEIGHTS'):
        os.environ['EFFDET_PLUGIN_OFFLINE'] = '1'
        os.environ['TORCH_HOME'] = str(tmp_path_factory.mktemp('torch_home'))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test draws the same numbers, alone or in the suite."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """A tool that runs in the process of the tests leaves no variable, such as torch's switch."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True, scope='module')
def _freed_memory_is_returned() -> Iterator[None]:
    """A training makes glibc keep what is freed; see `keep_freed_memory`."""
    yield
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:  # glibc only
        trim(0)


@pytest.fixture(scope='session')
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    """The command lines; what they have started ends with the session."""
    with Tools(tmp_path_factory.mktemp('tools')) as started:
        yield started


def pytest_collection_finish() -> None:
    """Leave what is imported out of every later search for garbage.

    mmengine collects garbage whenever it builds a dataset, which takes half a second for the
    million objects of torch, mmdet and the tests.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)  # after tests were deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or the network where there is none (``EFFDET_TEST_WEIGHTS=1``).

    Several processes get the tests in an order of which all of them end together.
    """
    number = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', '1'))
    if number > 1:
        items[:] = ordered(items, number)
    absent = {
        'gpu': (not torch.cuda.is_available(), 'needs a CUDA device'),
        'weights': (
            not os.environ.get('EFFDET_TEST_WEIGHTS'),
            'downloads weights; EFFDET_TEST_WEIGHTS=1 allows it',
        ),
    }
    for item in items:
        for name, (is_absent, reason) in absent.items():
            if is_absent and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))
