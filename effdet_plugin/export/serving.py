"""Model repositories for inference servers: Triton and OpenVINO Model Server (OVMS).

Both speak the Open Inference Protocol (KServe v2). Triton joins requests into batches, OVMS takes
batches of any size; both need outputs of a fixed number of rows: files with NMS inside.
Preprocessing stays with the client; what it has to know is written beside the model.

Sources: Triton's model_config.proto (triton-inference-server/common) and its guide to model
repositories (/server, docs/user_guide/model_repository.md); OVMS's MODELS_CONFIG_SCHEMA
(openvinotoolkit/model_server, src/schema.cpp) and docs/parameters.md.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

from effdet_plugin.errors import ConfigError
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.program import INPUT_NAME
from effdet_plugin.export.runtime import load_runtime
from effdet_plugin.files import read_json, replacing, sha256, write_atomically

ENGINES = ('triton', 'ovms')
MAX_BATCH = 8  # requests that Triton takes together
MAX_DELAY_US = 2000  # that a request waits for others; a network needs several times as long
# The formats of each engine, and their files. Triton's backend for OpenVINO was not tried.
_FORMATS = {'triton': ('onnx',), 'ovms': ('openvino', 'onnx')}
_SUFFIXES = {'onnx': ('.onnx',), 'openvino': ('.bin', '.xml')}
# What a client needs to know; see docs/serving.md.
_CLIENT_KEYS = (
    'classes', 'image_size', 'mean', 'std', 'pad_value', 'resize_mode', 'resize_dtype', 'input',
)  # fmt: skip


@dataclass(frozen=True)
class Served:
    """What was written.

    Attributes:
        name: Of the model, in addresses.
        version: Number of the version.
        folder: Of the model.
        config: The engine's config file.
        client: What a client needs to know, as JSON.
    """

    name: str
    version: int
    folder: Path
    config: Path
    client: Path


def serve(path: Path | str, engine: str, repository: Path | str) -> Served:
    """Put an exported file into a model repository.

    A file that is new there becomes the next version; servers that poll the repository load it.

    Args:
        path: ``.onnx``, for OVMS also ``.xml``, of a fixed size and with NMS inside; its name
            becomes the model's.
        engine: ``'triton'`` or ``'ovms'``.
        repository: Folder of the server; other models in it stay.

    Raises:
        ConfigError: An unknown engine, or a file that it cannot serve.
        CheckpointError: The file is damaged or not ours.
        InstallError: The file's runtime, which checks it, is not installed.
        WriteError: The repository cannot be written.
    """
    path, repository = Path(path), Path(repository)
    if engine not in ENGINES:
        raise ConfigError(f'--serve {engine}: choose {" or ".join(ENGINES)}')
    known = load_runtime(path).metadata
    name = _checked_name(path, known, engine)
    folder = repository / name
    if engine == 'triton':
        config, text = folder / 'config.pbtxt', triton_config(name, known)
    else:
        config = repository / 'config.json'
        text = json.dumps(_ovms_config(config, name), indent=1)
    version = _put_files(path, known, folder)
    client = repository / f'{name}.client.json'
    write_atomically(client, json.dumps(client_info(name, known), indent=1))
    # Last: a server that polls sees the files before the config that names them.
    write_atomically(config, text)
    return Served(name, version, folder, config, client)


def client_info(name: str, known: Metadata) -> dict[str, Any]:
    """Return what a client needs to know of a model."""
    return {'model': name, **{key: getattr(known, key) for key in _CLIENT_KEYS}}


def triton_config(name: str, known: Metadata) -> str:
    """Return Triton's ``config.pbtxt`` of a file.

    Args:
        name: Of the model.
        known: The file's metadata.
    """
    assert known.image_size is not None
    height, width = known.image_size
    rows = int(known.nms.get('max_per_img', 100))
    is_float = known.input == 'float'
    entry = _tensor(
        INPUT_NAME,
        'TYPE_FP32' if is_float else 'TYPE_UINT8',
        [3, height, width] if is_float else [-1, -1, 3],
    )
    outputs = [
        _tensor('boxes', 'TYPE_FP32', [rows, 4]),
        _tensor('scores', 'TYPE_FP32', [rows]),
        _tensor('labels', 'TYPE_INT64', [rows]),
        # One number for an image: no dimension beside the batch, which Triton writes like this.
        _tensor('num', 'TYPE_INT64', [1], ' reshape { shape: [ ] }'),
    ]
    lines = [
        f'name: {json.dumps(name)}',
        'backend: "onnxruntime"',
        'default_model_filename: "model.onnx"',
        f'max_batch_size: {MAX_BATCH}',
        f'input [\n{entry}\n]',
        'output [\n' + ',\n'.join(outputs) + '\n]',
        f'dynamic_batching {{ max_queue_delay_microseconds: {MAX_DELAY_US} }}',
    ]
    return '\n'.join(lines) + '\n'


def _tensor(name: str, kind: str, dims: list[int], more: str = '') -> str:
    sides = ', '.join(map(str, dims))
    return f'  {{ name: "{name}" data_type: {kind} dims: [ {sides} ]{more} }}'


def _ovms_config(path: Path, name: str) -> dict[str, Any]:
    """Return the config of the repository with this model added.

    Raises:
        ConfigError: There is a file that is no such config.
    """
    found: Any = read_json(path) if path.exists() else {'model_config_list': []}
    listed = found.get('model_config_list') if isinstance(found, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(x, Mapping) for x in listed):
        raise ConfigError(
            f'{path}: no config of OpenVINO Model Server (model_config_list): choose another folder'
        )
    # Float32 and not the processor's fastest: what the file was checked with. Several requests at
    # once share the cores better than one after the other.
    plugin = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'THROUGHPUT'}
    # A relative path is one from the config's folder.
    entry = {'config': {'name': name, 'base_path': name, 'plugin_config': plugin}}
    others = [x for x in listed if x.get('config', {}).get('name') != name]
    return {**found, 'model_config_list': [*others, entry]}


def _checked_name(path: Path, known: Metadata, engine: str) -> str:
    """Return the name of a model that can be served.

    Raises:
        ConfigError: Says why it cannot.
    """
    if known.format not in _FORMATS[engine]:
        names = ' or '.join(_FORMATS[engine])
        raise ConfigError(
            f'{path}: --serve {engine} takes {names}; export the checkpoint with --format {names}'
        )
    if known.end != 'postprocess' or known.image_size is None:
        raise ConfigError(
            f'{path}: a server joins requests into batches, which needs NMS inside and one size: '
            'export it with --end postprocess, without --dynamic'
        )
    if not re.fullmatch(r'[A-Za-z0-9][\w.-]*', path.stem, re.ASCII):
        raise ConfigError(
            f"{path}: its name becomes the model's, in addresses: letters, digits, . _ and - only"
        )
    return path.stem


def _put_files(path: Path, known: Metadata, folder: Path) -> int:
    """Copy a file, or both of OpenVINO's, as a version of a model; return its number."""
    suffixes = _SUFFIXES[known.format]
    numbers = [int(x.name) for x in folder.glob('*') if x.is_dir() and x.name.isdecimal()]
    latest = max(numbers, default=0)
    sources = [path.with_suffix(suffix) for suffix in suffixes]
    there = [folder / str(latest) / f'model{suffix}' for suffix in suffixes]
    is_there = all(x.is_file() for x in there) and sha256(*there) == sha256(*sources)
    version = latest if is_there else latest + 1
    for source in [] if is_there else sources:
        with replacing(folder / str(version) / f'model{source.suffix}') as part:
            copyfile(source, part)
    return version
