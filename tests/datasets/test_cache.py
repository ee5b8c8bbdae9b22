"""The cache of decoded images: its bounds, its limits on a machine, damage and full disks."""

import logging
import os
import pickle
from multiprocessing import popen_spawn_posix
from multiprocessing.context import set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effdet_plugin.datasets import cache as caches
from effdet_plugin.datasets.cache import (
    GIGABYTE,
    Cache,
    DiskCache,
    MemoryCache,
    cache_in_words,
    open_cache,
    parse_cache,
)
from effdet_plugin.errors import ConfigError

IMAGE = np.full((200, 200, 3), 7, np.uint8)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in caches._LOCAL_PROCESSES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Lines of the log."""
    lines: list[Any] = []
    monkeypatch.setattr(caches, 'print_log', lambda *line: lines.append(line))
    return lines


def got(cache: Any, key: str) -> Any:
    image = cache.get(key)
    assert image is not None
    return image


@pytest.mark.parametrize('kind', ['ram', 'disk'])
def test_cache__bounded_and_copies(tmp_path: Path, kind: str) -> None:
    images = [np.full((200, 200, 3), i, np.uint8) for i in range(4)]
    limit = int(2.5 * images[0].nbytes)
    cache = MemoryCache(limit) if kind == 'ram' else DiskCache(tmp_path / 'cache', limit)
    for i, image in enumerate(images):
        cache.put(str(i), image)
    assert [cache.get(str(i)) is not None for i in range(4)] == [True, True, False, False]
    got(cache, '0')[:] = 9  # a transform may write into its image
    assert not got(cache, '0').any()
    cache.put('small', np.zeros((8, 8, 3), np.uint8))
    assert cache.get('small') is None
    if kind == 'disk':
        assert sum(f.stat().st_size for f in tmp_path.rglob('*.npy')) <= limit
        later = DiskCache(tmp_path / 'cache', limit)  # another training
        later.put('3', images[3])
        assert later.get('3') is None
        assert np.array_equal(got(later, '1'), images[1])


def test_cache__damaged_files_are_written_again(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    cache = DiskCache(tmp_path, 10**7)
    cache.put('a', image)
    (file,) = tmp_path.rglob('*.npy')
    whole = file.read_bytes()
    pickled = np.array([{'a': 1}], dtype=object)
    for damage in (b'', whole[:70], whole[:-1], b'x' * 300, pickle.dumps(pickled)):
        file.write_bytes(damage)
        assert cache.get('a') is None
    with file.open('wb') as out:
        np.save(out, pickled, allow_pickle=True)
    assert cache.get('a') is None
    cache.put('a', image)
    assert np.array_equal(got(cache, 'a'), image)


def test_cache__a_full_disk_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[Any]
) -> None:
    monkeypatch.setattr(caches, '_KEPT_FREE', 1 << 60)
    cache = DiskCache(tmp_path, 10**7)
    for i in range(3):
        cache.put(str(i), np.zeros((200, 200, 3), np.uint8))
        assert cache.get(str(i)) is None
    ((text, _, level),) = told
    assert 'takes no more images' in text
    assert level == logging.WARNING


def test_parse_cache(tmp_path: Path) -> None:
    assert parse_cache('ram') == (None, None)
    assert parse_cache('ram:1.5') == (None, 1.5)
    assert parse_cache('a/b:20') == (Path('a/b'), 20)
    assert parse_cache('C:/x') == (Path('C:/x'), None)
    assert isinstance(open_cache('ram'), MemoryCache)
    assert cache_in_words('ram').endswith("memory: at most an eighth of the machine's")
    assert cache_in_words('ram:2').endswith('memory: at most 2 GB')
    assert cache_in_words('a/b').endswith('a/b: at most 10 GB')
    for bad in ('', ':3', 'ram:0', 'ram:-1', 'ram:nan', str(tmp_path / 'f')):
        (tmp_path / 'f').write_text('')
        with pytest.raises(ConfigError, match='--cache'):
            open_cache(bad)


def test_parse_cache__more_than_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r'--cache ram:1e\+06: there are .* GB of memory'):
        parse_cache('ram:1e+06')
    with pytest.raises(ConfigError, match='of memory cannot be had'):
        MemoryCache(1 << 70)


@pytest.mark.parametrize(('text', 'gigabytes'), [('4294967296\n', 4), ('max\n', 64)])
def test_memory__a_container_may_have_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, gigabytes: int
) -> None:
    (tmp_path / 'memory.max').write_text(text)
    monkeypatch.setattr(caches, '_MEMORY_LIMITS', (tmp_path / 'memory.max', tmp_path / 'absent'))
    monkeypatch.setattr(
        caches.os, 'sysconf', lambda name: 8 * (1 << 15) if 'SIZE' in name else 1 << 18
    )
    assert caches._memory() == gigabytes * GIGABYTE


@pytest.mark.parametrize(
    ('name', 'value', 'processes'),
    [
        ('LOCAL_WORLD_SIZE', '4', 4),
        ('OMPI_COMM_WORLD_LOCAL_SIZE', '2', 2),
        ('SLURM_NTASKS_PER_NODE', '8(x2)', 8),
        ('SLURM_STEP_TASKS_PER_NODE', '0', 1),
    ],
)
def test_cache__each_process_has_its_share_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, processes: int
) -> None:
    monkeypatch.setenv(name, value)
    assert Cache(800).limit == 800 // processes
    assert Cache(1000, used=200).limit == 200 + 800 // processes
    assert Cache(100, used=200).limit == 200  # no more


def test_disk__counts_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No parts, and none that vanish meanwhile."""
    (tmp_path / 'ab').mkdir()
    (tmp_path / 'ab' / '.abc.part-x.npy').write_bytes(b'x' * 50)
    (tmp_path / 'ab' / 'abc.npy').write_bytes(b'x' * 20)
    (tmp_path / 'ab' / 'gone.npy').symlink_to(tmp_path / 'absent')
    assert DiskCache(tmp_path, 1000).used == 20
    monkeypatch.setattr(caches, 'DISK_GIGABYTES', 10 / GIGABYTE)
    assert 'GB are there: no more are added' in cache_in_words(str(tmp_path))


@pytest.mark.parametrize('kind', ['ram', 'disk'])
def test_cache__a_lock_that_stays_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[Any], kind: str
) -> None:
    """Its holder was killed: images are read as without a cache, after waiting once."""
    cache = MemoryCache(10**7) if kind == 'ram' else DiskCache(tmp_path, 10**7)
    cache.put('a', IMAGE)
    waits: list[float] = []

    class _Held:
        def acquire(self, timeout: float) -> bool:
            waits.append(timeout)
            return False

    monkeypatch.setattr(cache._count, 'get_lock', _Held)
    for _ in range(3):
        cache.put('b', IMAGE)
        assert cache.get('b') is None
    assert len(waits) == len(told) == 1
    assert 'holds its lock' in told[0][0]
    assert (cache.get('a') is None) is (kind == 'ram')  # files need no lock


def test_disk__spawned_workers_share_the_count(tmp_path: Path) -> None:
    """Pickled as for a spawned process, and read here."""

    class _Spawned:
        DupFd = staticmethod(popen_spawn_posix._DupFd)
        duplicate_for_child = staticmethod(os.dup)

    cache = DiskCache(tmp_path, 10**7)
    set_spawning_popen(_Spawned())
    try:
        sent = ForkingPickler.dumps(cache)
    finally:
        set_spawning_popen(None)
    later = pickle.loads(sent)
    later.put('a', IMAGE)
    assert np.array_equal(got(cache, 'a'), IMAGE)
    assert cache.used == later.used >= IMAGE.nbytes
    assert cache.limit == later.limit == 10**7


def test_memory__cannot_be_sent() -> None:
    with pytest.raises(ConfigError, match='forked workers only'):
        pickle.dumps(MemoryCache(10**7))
