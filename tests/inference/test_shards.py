"""Inference in shards: divided, killed and repeated, merged to what one process writes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.files import write_image
from effdet_plugin.inference import Detector, Frames, InferOptions, find_sources, infer
from effdet_plugin.inference.shards import divided, infer_in_shards
from effdet_plugin.inference.sources import Kind, Source
from effdet_plugin.inference.video_file import file_class, writing_video
from effdet_plugin.inference.workers import Workers
from support import REPOSITORY

ALONE = Workers()


def of_kinds(text: str) -> list[Source]:
    kinds = {'i': Kind.IMAGE, 'v': Kind.VIDEO}
    return [Source(kinds[letter], str(n), str(n)) for n, letter in enumerate(text)]


@pytest.mark.parametrize(
    ('kinds', 'processes', 'batch', 'expected'),
    [
        ('iiiiiiii', 1, 1, [(n, n + 1) for n in range(8)]),
        ('iiiii', 1, 4, [(0, 4), (4, 5)]),
        ('iiviii', 1, 3, [(0, 2), (2, 3), (3, 6)]),
        ('vv', 4, 1, [(0, 1), (1, 2)]),
    ],
)
def test_divided(kinds: str, processes: int, batch: int, expected: list[tuple[int, int]]) -> None:
    assert divided(of_kinds(kinds), processes, batch) == expected


def test_divided__every_file_once_and_no_shard_too_large() -> None:
    shards = divided(of_kinds('i' * 5000), 2, 3)
    assert [n for first, end in shards for n in range(first, end)] == list(range(5000))
    assert max(end - first for first, end in shards) == 258  # 256 as whole batches of 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in two folders with the same names, one broken, and two videos, one broken."""
    rng = np.random.default_rng(0)
    for place in ('a', 'b'):
        for name in ('x.png', 'y.jpg', 'z.jpg'):
            pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            write_image(tmp_path / 'in' / place / name, pixels)
    (tmp_path / 'in' / 'a' / 'y.jpg').write_text('no image')
    for number in range(2):
        with writing_video(tmp_path / 'in' / 'a' / f'y{number}{file_class().suffix}', 10) as file:
            for frame in range(3):
                file.write(np.full((40, 64, 3), 60 * frame, np.uint8), frame / 10)
    (tmp_path / 'in' / 'a' / f'y1{file_class().suffix}').write_bytes(b'no video')
    return tmp_path / 'in'


def inputs_of(folder: Path) -> list[str]:
    return [str(folder / 'a'), str(folder / 'b')]


def files_of(out: Path) -> dict[str, bytes]:
    """All files but videos, which hold the time of their writing; of those the names."""
    found = {str(path.relative_to(out)): path for path in out.rglob('*') if path.is_file()}
    return {
        name: b'' if path.suffix in ('.mp4', '.webm') else path.read_bytes()
        for name, path in found.items()
    }


def test_shards__give_the_files_of_one_call(
    tiny_config: Config, folder: Path, tmp_path: Path
) -> None:
    detector = Detector(tiny_config, 'none')
    sources = [source for text in inputs_of(folder) for source in find_sources(text)]
    options = InferOptions(score_thr=0.3)
    whole = infer(detector, sources, tmp_path / 'one', options)
    merged = infer_in_shards(detector, inputs_of(folder), tmp_path / 'two', options, {}, ALONE)
    assert merged is not None
    assert 0 < merged.num_objects == whole.num_objects
    assert files_of(tmp_path / 'one') == files_of(tmp_path / 'two')
    assert (merged.num_read, merged.num_frames, merged.num_skipped) == (8, 3, 1)
    assert merged.unreadable == whole.unreadable
    assert len(merged.unreadable) == 2
    assert merged.highest == whole.highest


def fails_at(
    name: str, detector: Detector, inputs: list[str], out: Path, settings: dict[str, Any]
) -> None:
    """Begin a call that fails when it writes the rows of one image."""
    write = json.dumps

    def fail(value: Any, *rest: Any, **options: Any) -> str:
        if isinstance(value, dict) and value.get('file_name') == name:
            raise RuntimeError('no memory')
        return write(value, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('effdet_plugin.inference.results.json.dumps', fail)
        with pytest.raises(RuntimeError, match='no memory'):
            infer_in_shards(detector, inputs, out, InferOptions(), settings, ALONE)


def test_shards__what_is_done_is_not_done_again(
    tiny_config: Config, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(tiny_config, 'none')
    out, inputs = tmp_path / 'out', [str(folder / 'b')]
    fails_at('z.jpg', detector, inputs, out, {})
    assert not (out / 'predictions.json').exists()
    done = sorted(path.name for path in (out / 'shards').glob('*.counts.json'))
    assert done == ['000000.counts.json', '000001.counts.json']
    seen = []
    detect = Detector.__call__

    def watched(self: Detector, images: Any) -> Any:
        seen.append(len(images))
        return detect(self, images)

    monkeypatch.setattr(Detector, '__call__', watched)
    merged = infer_in_shards(detector, inputs, out, InferOptions(), {}, ALONE)
    assert seen == [1]
    assert merged is not None
    assert merged.num_read == 3
    assert not (out / 'shards').exists()
    whole = infer(detector, find_sources(inputs[0]), tmp_path / 'one')
    assert files_of(tmp_path / 'one') == files_of(out)
    assert merged.num_objects == whole.num_objects


def test_shards__of_another_call_are_refused(
    tiny_config: Config, folder: Path, tmp_path: Path
) -> None:
    detector = Detector(tiny_config, 'none')
    out, inputs = tmp_path / 'out', [str(folder / 'b')]

    def call(settings: dict[str, Any], options: InferOptions | None = None) -> None:
        infer_in_shards(detector, inputs, out, options or InferOptions(), settings, ALONE)

    fails_at('y.jpg', detector, inputs, out, {'score_thr': 0.3})
    with pytest.raises(ConfigError, match='another call'):
        call({'score_thr': 0.4})
    (folder / 'b' / 'new.jpg').write_bytes((folder / 'b' / 'y.jpg').read_bytes())
    with pytest.raises(ConfigError, match='another call'):
        call({'score_thr': 0.3})
    (folder / 'b' / 'new.jpg').unlink()
    (out / 'shards' / '000000.counts.json').write_text('[]')
    with pytest.raises(DatasetError, match=r'000000\.counts\.json: damaged'):
        call({'score_thr': 0.3})
    (out / 'shards' / '000000.counts.json').unlink()
    call({'score_thr': 0.3})


def test_shards__of_files_only(tiny_config: Config, tmp_path: Path) -> None:
    detector = Detector(tiny_config, 'none')
    with pytest.raises(ConfigError, match='files only'):
        infer_in_shards(detector, ['rtsp://host/a'], tmp_path, InferOptions(), {}, ALONE)
    with pytest.raises(ConfigError, match='--show'):
        infer_in_shards(detector, [], tmp_path, InferOptions(show=True), {}, ALONE)


def torchrun(config: Path, folder: Path, out: Path, **options: Any) -> subprocess.Popen[str]:
    """``tools/dist_infer.sh 2`` on the CPU, in a process group of its own."""
    script = str(REPOSITORY / 'tools' / 'dist_infer.sh')
    words = [config, 'none', folder, '--out', out, '--score-thr', '0.3', '--device', 'cpu']
    return subprocess.Popen(
        ['bash', script, '2', *map(str, words)],
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **options},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.dist
@pytest.mark.timeout(600)  # three starts of PyTorch, two of them with two processes
@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='processes outlive torchrun')
def test_shards__two_processes_killed_and_repeated(tiny_config: Config, tmp_path: Path) -> None:
    config = tmp_path / 'tiny.py'
    tiny_config.dump(str(config))
    rng = np.random.default_rng(0)
    for number in range(64):
        pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        write_image(tmp_path / 'in' / f'{number:03d}.jpg', pixels)
    out = tmp_path / 'out'
    first = torchrun(config, tmp_path / 'in', out)
    until = time.monotonic() + 200
    while len(done := list(out.glob('shards/*.counts.json'))) < 3 and time.monotonic() < until:
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    owner = int((out / 'shards' / 'run.lock').read_text().split()[1])
    os.killpg(first.pid, signal.SIGKILL)  # torchrun; its processes end with it
    first.communicate()
    while Path(f'/proc/{owner}').exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert len(done) >= 3
    assert not (out / 'predictions.json').exists()
    second = torchrun(config, tmp_path / 'in', out)
    said, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors[-2000:]
    assert said.count('64 images') == 1  # one process tells it
    missing = int(re.findall(r'\| \d+/(\d+) \[', errors)[-1])
    assert missing <= 16 - len(done)
    detector = Detector(Config.fromfile(config), 'none', device='cpu')
    sources = find_sources(tmp_path / 'in')
    infer(detector, sources, tmp_path / 'one', InferOptions(0.3, Frames()))
    one, two = (path / 'predictions.json' for path in (tmp_path / 'one', out))
    assert json.loads(one.read_text()) == json.loads(two.read_text())
    assert files_of(tmp_path / 'one').keys() == files_of(out).keys()
