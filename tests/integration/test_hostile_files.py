"""Files that run code when they are unpickled or executed: nothing of them runs, by any door.

What they would do is make a folder, the marker.
"""

import functools
import json
import os
import pickle
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import FAULTS, Result, Tools
from tiny_project import Project, curve, load, must_equal, rows


class Evil:
    """An object whose unpickling makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing about it."""

    def log_message(self, *_: object) -> None:
        """No line for a request."""


class Hostile:
    """A folder of hostile files, what it is called on a server, and the marker."""

    def __init__(self, folder: Path, address: str, checkpoint: dict[str, Any]) -> None:
        self.folder, self.address = folder, address
        self.marker = folder.parent / 'marker'
        content = {**checkpoint, 'evil': Evil(self.marker)}
        torch.save(content, folder / 'zip.pth')
        torch.save(content, folder / 'legacy.pth', _use_new_zipfile_serialization=False)
        for name in ('bare.pth', 'bare.pkl', 'bare.json', 'bare.txt'):
            (folder / name).write_bytes(pickle.dumps(content))
        np.savez(folder / 'object.npz', weights=np.array([Evil(self.marker)], dtype=object))
        np.save(folder / 'object.npy', np.array([Evil(self.marker)], dtype=object))

    def places(self, *names: str) -> list[str]:
        """Paths and addresses of some of the files."""
        return [*(str(self.folder / n) for n in names), *(f'{self.address}/{n}' for n in names)]


@pytest.fixture(scope='module')
def hostile(killed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """Hostile files around a checkpoint of this network, which would serve otherwise."""
    folder = tmp_path_factory.mktemp('hostile') / 'files'
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f'http://127.0.0.1:{server.server_port}'
        yield Hostile(folder, address, load(killed_run / 'epoch_3.pth'))
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _nothing_runs(hostile: Hostile) -> Iterator[None]:
    """The files do what they are for when they are unpickled; no test unpickles them."""
    yield
    assert not hostile.marker.exists()


def test_files__would_run(hostile: Hostile) -> None:
    for name in ('zip.pth', 'legacy.pth'):
        torch.load(hostile.folder / name, weights_only=False)
        hostile.marker.rmdir()


class Trials:
    """Runs commands on hostile files, and collects what is wrong with their answers."""

    def __init__(self, hostile: Hostile) -> None:
        self.hostile = hostile
        self.faults: list[str] = []

    def add(self, place: str, result: Result, *, may_succeed: bool = False) -> None:
        """One line that names the file and exit code 2 (or, where allowed, 0); nothing has run."""
        if self.hostile.marker.exists():
            self.hostile.marker.rmdir()
            self.faults.append(f'=== {place}: CODE WAS RUN, {result}')
        elif result.code or not may_succeed:
            try:
                result.must_be_refused(Path(place).name)
            except AssertionError:
                self.faults.append(f'=== {place}: {result}')

    def check(self) -> None:
        """Fail with all that was wrong."""
        assert not self.faults, '\n'.join(self.faults)


CHECKPOINT = "init_cfg=dict(type='Pretrained', checkpoint={place!r})"
TRAINING_DOORS = {
    'load_from': 'load_from = {place!r}',
    'load_from and resume': 'load_from = {place!r}\nresume = True',
    'pretrained': 'model = dict(backbone=dict(pretrained={place!r}))',
    'init_cfg of the backbone': f'model = dict(backbone=dict({CHECKPOINT}))',
    'init_cfg of the model': f'model = dict({CHECKPOINT})',
}


@pytest.mark.parametrize('door', TRAINING_DOORS)
def test_train(tools: Tools, project: Project, hostile: Hostile, tmp_path: Path, door: str) -> None:
    trials = Trials(hostile)
    for number, place in enumerate(hostile.places('zip.pth', 'legacy.pth')):
        config = project.variant(f'door{number}', TRAINING_DOORS[door].format(place=place))
        work_dir, home = tmp_path / f'work{number}', str(tmp_path / 'home')
        trials.add(place, tools.train(config, work_dir, fault='SIGKILL@1', TORCH_HOME=home))
    trials.check()
    assert not list(tmp_path.glob('work*/*.pth'))


def test_train__options(tools: Tools, project: Project, hostile: Hostile, tmp_path: Path) -> None:
    trials, home = Trials(hostile), str(tmp_path / 'home')
    for option in ('--resume', '--dry-run'):
        for place in hostile.places('zip.pth', 'legacy.pth'):
            load_from = ['--cfg-options', f'load_from={place}']
            arguments = [option, *([place] if option == '--resume' else load_from)]
            trials.add(
                place, tools.train(project.config, tmp_path / 'w', *arguments, TORCH_HOME=home)
            )
            shutil.rmtree(tmp_path / 'w', ignore_errors=True)
    trials.check()


COMMANDS = {
    'test': ('test.py', '{config}', '{place}'),
    'test: load_from': ('test.py', '{config}', 'none', '--cfg-options', 'load_from={place}'),
    'infer': ('infer.py', '{config}', '{place}', '{image}', '--out', '{out}'),
    'infer: load_from': (
        'infer.py', '{config}', 'none', '{image}', '--out', '{out}', '--cfg-options',
        'load_from={place}',
    ),
    'convert': ('convert.py', '{place}', '{out}.pth', '--cache', '{out}'),
}  # fmt: skip


@pytest.mark.parametrize('name', COMMANDS)
def test_checkpoint_of_a_command(
    tools: Tools, project: Project, hostile: Hostile, tmp_path: Path, name: str
) -> None:
    trials = Trials(hostile)
    for place in [*hostile.places('zip.pth', 'legacy.pth'), str(hostile.folder / 'bare.pth')]:
        out = str(tmp_path / 'out')
        known = dict(config=project.config, image=project.image, place=place, out=out)
        command = [str(part).format(**known) for part in COMMANDS[name]]
        result = tools.run(*command, TORCH_HOME=str(tmp_path / 'home'))
        # Where random weights are asked for, the file may be of no interest.
        trials.add(place, result, may_succeed='load_from' in name)
    trials.check()


def test_convert__arrays_of_objects(tools: Tools, hostile: Hostile, tmp_path: Path) -> None:
    trials = Trials(hostile)
    for place in hostile.places('object.npz', 'object.npy'):
        cache = tmp_path / 'cache'
        trials.add(place, tools.run('convert.py', place, tmp_path / 'o.pth', '--cache', cache))
    trials.check()


def test_files_that_are_no_weights(
    tools: Tools, project: Project, hostile: Hostile, tmp_path: Path
) -> None:
    """Result files, annotations, class names, lists of images, proposals."""
    results_json = tmp_path / 'results.json'
    results_json.write_text('[{"image_id": 8, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 1}]')
    fused, config = tmp_path / 'fused.json', project.config
    bare = {end: hostile.folder / f'bare.{end}' for end in ('json', 'pkl', 'txt', 'pth')}
    data, work = 'train_dataloader.dataset.dataset', tmp_path / 'work'
    start = ('train.py', config, '--work-dir', work, '--dry-run')
    commands = [
        (bare['json'], 'fuse.py', bare['json'], results_json, '--out', fused),
        (bare['pth'], 'fuse.py', results_json, bare['pth'], '--out', fused),
        (bare['json'], 'fuse.py', results_json, results_json, '--out', fused, '--ann-file',
         bare['json']),
        (bare['txt'], 'infer.py', config, 'none', bare['txt'], '--out', tmp_path / 'out'),
        (bare['json'], *start, '--data', bare['json']),
        (bare['pkl'], *start, '--data', bare['pkl']),
        (bare['json'], *start, '--cfg-options', f'{data}.ann_file={bare["json"]}'),
        (bare['pkl'], *start, '--cfg-options', f'{data}.ann_file={bare["pkl"]}'),
        (bare['pkl'], *start, '--cfg-options', f'{data}.proposal_file={bare["pkl"]}'),
        (bare['json'], 'test.py', config, 'none', '--cfg-options',
         f'test_evaluator.ann_file={bare["json"]}'),
        (bare['pkl'], 'train.py', bare['pkl'], '--work-dir', work),
    ]  # fmt: skip
    trials = Trials(hostile)
    for file, *command in commands:
        trials.add(str(file), tools.run(*command))
    trials.check()


def test_newest_checkpoint_of_the_work_dir__is_passed_over(
    tools: Tools, project: Project, hostile: Hostile, whole_run: Path, killed_copy: Path
) -> None:
    for form in ('zip', 'legacy'):
        shutil.copy(hostile.folder / f'{form}.pth', killed_copy / 'epoch_3.pth')
        before = len(rows(killed_copy))
        result = tools.train(project.config, killed_copy, '--resume', fault='SIGKILL@11')
        assert result.code == -9, result
        found = curve(rows(killed_copy)[before:])
        must_equal(found, {step: curve(rows(whole_run))[step] for step in (9, 10)}, 9, last=10)
        assert not hostile.marker.exists()


DUMP = "model = dict(type='EfficientDet')\n"


def plant(work_dir: Path, marker: Path) -> None:
    """Files as a run leaves them, which make the marker when they are executed or imported."""
    evil = f'import os\nos.makedirs({str(marker)!r}, exist_ok=True)\n'
    dotted = {'type': 'os.makedirs', 'name': str(marker), 'exist_ok': True}
    config = {
        'model': dotted,
        'default_hooks': {'evil': dotted},
        'visualizer': dotted,
        'custom_imports': {'imports': ['evil_module'], 'allow_failed_imports': False},
        '_base_': ['evil_base.py'],
    }
    log = work_dir / '20200101_000000' / 'vis_data'
    log.mkdir(parents=True)
    (log / 'scalars.json').write_text('{"loss": 1.0, "step": 1}\n')
    (work_dir / 'evil_base.py').write_text(evil + DUMP)
    (work_dir / 'evil_module.py').write_text(evil)
    texts = {
        'plain.py': evil + DUMP,
        'called.py': f'{DUMP}x = __import__("os").makedirs({str(marker)!r}, exist_ok=True)\n',
        'based.py': f"_base_ = './evil_base.py'\n{DUMP}",
        'formed.py': f"{DUMP}x = '{{{{ {{}}.__class__ }}}}'\n_base_ = ['evil_base.py']\n",
        'imports.py': f"custom_imports = dict(imports=['evil_module'])\n{DUMP}",
        'run.py': f'dict = lambda **k: __import__("os").makedirs({str(marker)!r})\n{DUMP}',
        'config.yaml': f'!!python/object/apply:os.makedirs [{str(marker)!r}]\n',
    }
    for name, text in texts.items():
        (work_dir / name).write_text(text)
        (log / name).write_text(text)
    for folder in (work_dir, log):
        (folder / 'config.json').write_text(json.dumps(config))
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))


@pytest.mark.parametrize('newest', ['based.py', 'imports.py', 'called.py', 'run.py', 'config.json'])
def test_hostile_work_dir(
    tools: Tools, project: Project, hostile: Hostile, tmp_path: Path, newest: str
) -> None:
    """Without an option it is refused; its checkpoint, a pickle, is never taken."""
    work_dir = tmp_path / 'work'
    plant(work_dir, hostile.marker)
    shutil.copy(hostile.folder / 'zip.pth', work_dir / 'epoch_9.pth')
    for path in work_dir.rglob(newest):
        os.utime(path, (4e9, 4e9))
    settings = dict(PYTHONPATH=f'{FAULTS}:{work_dir}')
    results = {'': tools.train(project.config, work_dir, **settings)}
    assert not hostile.marker.exists()
    if newest in ('based.py', 'config.json'):
        for option in ('--resume', '--overwrite', '--dry-run'):
            fault = '' if option == '--dry-run' else 'SIGKILL@1'
            results[option] = tools.train(project.config, work_dir, option, fault=fault, **settings)
            assert not hostile.marker.exists(), option
    results[''].must_be_refused(str(work_dir))
    for result in results.values():
        assert 'Traceback' not in result.text, result


def test_config_in_a_checkpoint__is_not_run(
    tools: Tools, project: Project, hostile: Hostile, killed_run: Path, tmp_path: Path
) -> None:
    """Whether it is used or not: the text, a dotted type, an import, an address of weights."""
    marker = str(hostile.marker)
    path, out = tmp_path / 'embedded.pth', tmp_path / 'out'
    checkpoint = load(killed_run / 'epoch_3.pth')
    dotted = {'type': 'os.makedirs', 'name': marker, 'exist_ok': True}
    weights = {'type': 'Pretrained', 'checkpoint': f'{hostile.address}/zip.pth'}
    config = {
        'custom_imports': {'imports': ['evil_module'], 'allow_failed_imports': False},
        'model': {'type': 'EfficientDet', 'backbone': dotted, 'init_cfg': weights},
        'test_pipeline': [dotted],
        'test_dataloader': {'dataset': {'type': 'EfficientDetDataset', 'pipeline': [dotted]}},
    }
    (tmp_path / 'evil_module.py').write_text(f'import os\nos.makedirs({marker!r})\n')
    checkpoint['meta']['cfg'] = f'import os\nos.makedirs({marker!r})\n{DUMP}'
    checkpoint['meta']['config'] = json.dumps(config)
    torch.save(checkpoint, path)
    settings = dict(PYTHONPATH=f'{FAULTS}:{tmp_path}')  # where ``evil_module`` can be imported
    commands = [
        ('test.py', project.config, path),
        ('infer.py', project.config, path, project.image, '--out', out),
        ('convert.py', path, tmp_path / 'converted.pth', '--to', 'effdet'),
        ('train.py', project.config, '--work-dir', tmp_path / 'work', '--dry-run',
         '--cfg-options', f'load_from={path}'),
    ]  # fmt: skip
    for command in commands:
        result = tools.run(*command, **settings)
        assert not hostile.marker.exists(), command
        assert result.code in (0, 2), result
        assert 'Traceback' not in result.text, result
