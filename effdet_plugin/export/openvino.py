"""OpenVINO: converted from the ONNX model; an ``.xml`` with its ``.bin`` beside it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export import onnx
from effdet_plugin.export.extras import need
from effdet_plugin.export.int8 import Feed
from effdet_plugin.export.metadata import KEY, Metadata
from effdet_plugin.export.program import INPUT_NAME, MIN_SCORE, Program
from effdet_plugin.export.runtime import MAX_FILE_BYTES, Array, Outputs, check_images
from effdet_plugin.files import read_bytes, sha256

EXTRA = 'openvino'
WEIGHTS = '.bin'


@cache
def core() -> Any:
    """Return the one Core of this process.

    On a CPU with AMX each Core that compiles sets a signal stack of its own. Of two that end in
    their order, the second restores the first one's, which is unmapped by then, and the next signal
    that Python handles (a worker's end, Ctrl-C) ends the process (openvinotoolkit/openvino#11894).

    Raises:
        InstallError: OpenVINO is not installed.
    """
    return need('openvino', EXTRA).Core()


def build(program: Program) -> Any:
    """Return the program as a model of OpenVINO.

    Args:
        program: Of `effdet_plugin.export.program`.

    Raises:
        ConfigError: OpenVINO cannot convert the network.
    """
    return convert(onnx.build(program))


def convert(model: Any) -> Any:
    """Convert an ONNX model.

    Raises:
        ConfigError: OpenVINO cannot convert the network.
    """
    try:
        return with_stable_order(core().read_model(model.SerializeToString(), b''))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.startswith('-- ')]
        raise ConfigError(
            f'OpenVINO cannot convert this network ({" ".join(lines)[:160]}): use --format onnx'
        ) from None


def with_stable_order(model: Any) -> Any:
    """Let the first of equal values win where the graph sorts, as ONNX says: OpenVINO may take any.

    Its top-k of candidates stays as it is: the stable form takes ten times as long for 5,000
    (680 ms in place of 65 for a whole Lite0), and two equal logits are rare.

    Args:
        model: Changed in place, and returned.
    """
    ov = need('openvino', EXTRA)
    sorts = [node for node in model.get_ops() if node.get_type_name() == 'TopK']
    for node in (node for node in sorts if 'sort' in node.get_friendly_name()):
        known = node.get_attributes()
        new = ov.opset11.topk(
            node.input_value(0),
            node.input_value(1),
            known['axis'],
            known['mode'],
            'value',
            known['index_element_type'],
            stable=True,
        )
        for old, output in zip(node.outputs(), new.outputs(), strict=True):
            old.replace(output)
        new.set_friendly_name(node.get_friendly_name())
    return model


def build_int8(program: Program, feed: Feed) -> Any:
    """Return the program as a model with a network of 8 bits; see `effdet_plugin.export.int8`.

    It is the one of ONNX, converted: one measurement for both runtimes. OpenVINO's transformations
    then drop what scales of channels have brought along, two thirds of the ``.xml``.

    Args:
        program: Of float32.
        feed: Images to measure with.
    """
    return smaller(convert(onnx.build_int8(program, feed)))


def smaller(model: Any) -> Any:
    """Apply OpenVINO's transformations; the least score of candidates stays a node of its name.

    Args:
        model: Changed in place, and returned.
    """
    ov = need('openvino', EXTRA)
    passes = need('openvino._offline_transformations', EXTRA)
    values = [node for node in model.get_ops() if node.get_friendly_name() == MIN_SCORE]
    # An input meanwhile: a constant would be merged into others.
    inputs = [ov.opset13.parameter([], np.float32, name=MIN_SCORE) for _ in values]
    for old, new in zip(values, inputs, strict=True):
        old.output(0).replace(new.output(0))
    model.add_parameters(inputs)
    passes.apply_moc_transformations(model, cf=False)
    for old, new in zip(values, inputs, strict=True):
        constant = ov.opset13.constant(np.array(old.get_data(), np.float32))
        constant.set_friendly_name(MIN_SCORE)
        new.output(0).replace(constant.output(0))
        model.remove_parameter(new)
    return model


def set_min_score(model: Any, value: float) -> None:
    """Set the least score of candidates.

    Args:
        model: From `build`.
        value: See `effdet_plugin.export.program`.
    """
    ov = need('openvino', EXTRA)
    (old,) = (node for node in model.get_ops() if node.get_friendly_name() == MIN_SCORE)
    new = ov.opset13.constant(np.array(value, np.float32))
    old.output(0).replace(new.output(0))
    new.set_friendly_name(MIN_SCORE)


def save(model: Any, metadata: Metadata, path: Path, compress_to_fp16: bool = False) -> None:
    """Write a model and its weights.

    Args:
        model: From `build`.
        metadata: Goes into its ``rt_info``, with the hash of the weights.
        path: ``.xml``; the weights are written to ``.bin`` beside it.
        compress_to_fp16: Store the weights in half precision.
    """
    ov = need('openvino', EXTRA)
    from dataclasses import replace

    ov.save_model(model, path, compress_to_fp16=compress_to_fp16)
    known = replace(metadata, weights_sha256=sha256(path.with_suffix(WEIGHTS)))
    model.set_rt_info(known.to_json(), [KEY])
    ov.save_model(model, path, compress_to_fp16=compress_to_fp16)


class OpenVinoRuntime:
    """A compiled model of OpenVINO.

    Args:
        request: For inference.
        metadata: Of the file.
    """

    def __init__(self, request: Any, metadata: Metadata) -> None:
        self.request = request
        self.metadata = metadata

    def __call__(self, images: Array) -> Outputs:
        """See `effdet_plugin.export.runtime.Runtime`."""
        check_images(images, self.metadata)
        found = self.request.infer({INPUT_NAME: np.ascontiguousarray(images)})
        return {name: found[name] for name in self.metadata.outputs}


def load(
    path: Path, device: str = 'cpu', threads: int | None = None, precision: str | None = 'f32'
) -> OpenVinoRuntime:
    """Load an ``.xml``; see `effdet_plugin.export.runtime.load_runtime`.

    Args:
        path: ``.xml``, with its ``.bin`` beside it.
        device: ``'cpu'``, or a device of OpenVINO's such as ``'gpu'``.
        threads: Number of threads; None: OpenVINO's default.
        precision: Of the computation: ``'f32'`` (differences of 1e-5), or None: the processor's
            fastest, often bfloat16 (differences of 1e-2).

    Raises:
        CheckpointError: The file is damaged, of another program, or its ``.bin`` is another's.
        ConfigError: OpenVINO has no such device here.
        InstallError: OpenVINO is not installed.
    """
    ov = need('openvino', EXTRA)
    weights = path.with_suffix(WEIGHTS)
    if not weights.is_file():
        raise CheckpointError(f'{path}: the weights {weights.name} are missing beside it')
    if weights.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError(f'{weights}: larger than 2 GB, which none of our files is')
    place = device.split(':')[0].upper()
    if place not in {name.split('.')[0] for name in core().available_devices}:
        raise ConfigError(f'device {device}: OpenVINO has none here; use cpu')
    text = read_bytes(path)
    metadata = _metadata(text, path)
    if metadata.weights_sha256 != sha256(weights):
        raise CheckpointError(
            f'{path}: {weights.name} is damaged or of another export; do it again'
        )
    settings: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY'}
    settings |= {'INFERENCE_PRECISION_HINT': precision} if precision else {}
    settings |= {'INFERENCE_NUM_THREADS': threads} if threads and place == 'CPU' else {}
    try:
        model = core().read_model(text, read_bytes(weights))
        compiled = core().compile_model(model, place, settings)
    except RuntimeError as error:
        reason = ' '.join(str(error).split())[-160:]
        raise CheckpointError(
            f'{path}: OpenVINO {ov.__version__.split("-")[0]} cannot load it ({reason}); export it '
            'again'
        ) from None
    return OpenVinoRuntime(compiled.create_infer_request(), metadata)


def _metadata(text: bytes, path: Path) -> Metadata:
    """Read the metadata from the text of an ``.xml``.

    Raises:
        CheckpointError: It is damaged.
    """
    import re
    from xml.etree import ElementTree

    try:
        # Decoded here: in another encoding a document type would not be seen below.
        decoded = text.decode('utf-8')
        # Entities, which could grow without bound, need a document type; ours have none.
        if re.search('<!(DOCTYPE|ENTITY)', decoded, re.IGNORECASE):
            raise CheckpointError(f'{path}: has a document type, as ours never do')
        found = ElementTree.fromstring(decoded).find(f'rt_info/{KEY}')
    except (ElementTree.ParseError, UnicodeDecodeError):
        raise CheckpointError(f'{path}: damaged, or cut; export it again') from None
    return Metadata.from_json(None if found is None else found.get('value'), str(path))
