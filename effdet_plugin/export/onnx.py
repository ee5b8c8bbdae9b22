"""ONNX: written by PyTorch's exporter, run by ONNX Runtime."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export.extras import need, quiet
from effdet_plugin.export.int8 import Feed, quantize_onnx
from effdet_plugin.export.metadata import KEY, Metadata
from effdet_plugin.export.nms_operator import translations
from effdet_plugin.export.program import INPUT_NAME, MIN_SCORE, Program
from effdet_plugin.export.runtime import Array, Outputs, check_images
from effdet_plugin.files import read_bytes

EXTRA = 'onnx'
_DOMAINS = ('', 'ai.onnx')  # of operators; others are of libraries that somebody has to load


def build(program: Program) -> Any:
    """Return the program as an ONNX model.

    Args:
        program: Of `effdet_plugin.export.program`.
    """
    need('onnx', EXTRA)
    need('onnxscript', EXTRA)
    import torch

    with quiet():
        made = torch.onnx.export(
            program.exported,
            (),
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=list(program.outputs),
            verbose=False,
            custom_translation_table=translations(),
        )
    assert made is not None
    return with_plain_pooling(_without_traces(made.model_proto))


def _without_traces(model: Any) -> Any:
    """Drop what the exporter noted of the source: half a megabyte, and paths of this machine."""
    for graph in graphs_of(model.graph):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ''
        for info in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
            del info.metadata_props[:]
            info.doc_string = ''
        del graph.metadata_props[:]
    return model


def build_int8(program: Program, feed: Feed) -> Any:
    """Return the program as a model with a network of 8 bits; see `effdet_plugin.export.int8`.

    Args:
        program: Of float32.
        feed: Images to measure with.
    """
    return quantize_onnx(build(program), feed)


def with_plain_pooling(model: Any) -> Any:
    """Write pooling 3/2 that rounds its size up as padding behind, with the same maxima.

    OpenVINO refuses kernels larger than a padded map: those of 2x2 pixels, as a network of 128 px
    has them. Rounding up reads the same row outside that the padding adds, for any size.

    Args:
        model: Changed in place.
    """
    for graph in graphs_of(model.graph):
        for node in graph.node:
            known = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type != 'MaxPool' or 'ceil_mode' not in known or not known['ceil_mode'].i:
                continue
            shape = [list(known[name].ints) for name in ('kernel_shape', 'strides')]
            if shape == [[3, 3], [2, 2]] and 'pads' in known:
                top, left, bottom, right = known['pads'].ints
                known['pads'].ints[:] = top, left, bottom + 1, right + 1
                known['ceil_mode'].i = 0
    return model


def graphs_of(graph: Any) -> Iterator[Any]:
    """Yield a graph and those of its loops and branches."""
    left = [graph]
    while left:
        graph = left.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                left += [attribute.g] if attribute.HasField('g') else []
                left += attribute.graphs


def set_min_score(model: Any, value: float) -> None:
    """Set the least score of candidates.

    Args:
        model: From `build`.
        value: See `effdet_plugin.export.program`.
    """
    onnx = need('onnx', EXTRA)
    (constant,) = (x for x in model.graph.initializer if x.name == MIN_SCORE)
    constant.CopyFrom(onnx.numpy_helper.from_array(np.array(value, np.float32), MIN_SCORE))


def save(model: Any, metadata: Metadata, path: Path) -> None:
    """Write a model.

    Args:
        model: From `build`.
        metadata: Goes into its ``metadata_props``.
        path: ``.onnx``.
    """
    onnx = need('onnx', EXTRA)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    model.producer_name, model.producer_version = KEY, metadata.version
    path.write_bytes(model.SerializeToString())


class OnnxRuntime:
    """A session of ONNX Runtime.

    Args:
        session: Made from our file.
        metadata: Of the file.
    """

    def __init__(self, session: Any, metadata: Metadata) -> None:
        self.session = session
        self.metadata = metadata

    def __call__(self, images: Array) -> Outputs:
        """See `effdet_plugin.export.runtime.Runtime`."""
        check_images(images, self.metadata)
        found = self.session.run(list(self.metadata.outputs), {INPUT_NAME: images})
        return dict(zip(self.metadata.outputs, found, strict=True))


def load(path: Path, device: str = 'cpu', threads: int | None = None) -> OnnxRuntime:
    """Load an ONNX file; see `effdet_plugin.export.runtime.load_runtime`.

    Raises:
        CheckpointError: The file is damaged, of another program, or needs further files.
        ConfigError: ONNX Runtime has no such device here.
        InstallError: ONNX or ONNX Runtime is not installed.
    """
    return load_content(read_bytes(path), path, device, threads)


def load_content(
    content: bytes, path: Path, device: str = 'cpu', threads: int | None = None
) -> OnnxRuntime:
    """Load the content of an ONNX file.

    Args:
        content: Of the file.
        path: For messages.
        device: See `load`, as the rest.
        threads: Likewise.
    """
    onnx, ort = need('onnx', EXTRA), need('onnxruntime', EXTRA)
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # of google.protobuf
        raise CheckpointError(f'{path}: damaged, or not an ONNX file; export it again') from None
    texts = {x.key: x.value for x in model.metadata_props}
    metadata = Metadata.from_json(texts.get(KEY), str(path))
    if metadata.format == 'tensorrt':
        raise CheckpointError(
            f'{path}: is for TensorRT: build its engine by benchmarks/tensorrt.sh on the GPU that '
            'runs it; here, use a file of --format onnx'
        )
    _check_self_contained(model, path)
    options = ort.SessionOptions()
    options.log_severity_level = 3  # it warns of initializers that it removes
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(content, options, providers=_providers(ort, device))
    except ConfigError:
        raise
    except Exception as error:  # one type for each of its status codes
        reason = ' '.join(str(error).split())[:160]
        raise CheckpointError(
            f'{path}: ONNX Runtime {ort.__version__} cannot load it ({reason}); export it again'
        ) from None
    names = [x.name for x in session.get_inputs()], [x.name for x in session.get_outputs()]
    if names != ([INPUT_NAME], list(metadata.outputs)):
        raise CheckpointError(f'{path}: its inputs and outputs are not those of its metadata')
    return OnnxRuntime(session, metadata)


def _providers(ort: Any, device: str) -> list[str]:
    known = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}
    name = known.get(device.split(':')[0])
    if name is None or name not in ort.get_available_providers():
        raise ConfigError(f'device {device}: ONNX Runtime has none here; use cpu')
    return [name] if name == known['cpu'] else [name, known['cpu']]


def _check_self_contained(model: Any, path: Path) -> None:
    """Refuse weights in other files, and operators that a library would have to bring.

    Raises:
        CheckpointError: Names what was found.
    """
    foreign = next((x.domain for x in model.opset_import if x.domain not in _DOMAINS), None)
    if foreign is not None or model.functions:
        raise CheckpointError(
            f'{path}: needs operators of {foreign or "its own"!r}, which ONNX Runtime does not '
            'have; a file for TensorRT runs there only'
        )
    for graph in graphs_of(model.graph):
        tensors = [*graph.initializer]
        tensors += [t for x in graph.sparse_initializer for t in (x.values, x.indices)]
        for node in graph.node:
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
        if any(t.data_location or t.external_data for t in tensors):
            raise CheckpointError(f'{path}: has weights in other files, as ours never do')
