"""TensorRT: an ONNX file for trtexec, with the plugin EfficientNMS_TRT at its end.

The plugin gets boxes in pixels and scores in 0..1, decoded by the graph, so that nothing depends on
its own anchors. ONNX Runtime runs all before it: that is what the check compares with PyTorch. The
engine is built where the GPU is, by benchmarks/tensorrt.sh.

The plugin looks at the best 4,096 (box, class) pairs above the score threshold, ours at the best
5,000: a threshold of 0.01 or more makes them equal, and the plugin fast.

Source: NVIDIA/TensorRT plugin/efficientNMSPlugin/README.md (attributes, inputs and outputs).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from effdet_plugin.errors import ConfigError
from effdet_plugin.export import onnx
from effdet_plugin.export.extras import need
from effdet_plugin.export.metadata import KEY, OUTPUTS, Metadata
from effdet_plugin.export.program import Program

PLUGIN, DOMAIN = 'EfficientNMS_TRT', 'TRT'
# Names that NVIDIA's own samples give them: (B, 1) and (B, M) int32, the others float32.
PLUGIN_OUTPUTS = ('num_dets', 'det_boxes', 'det_scores', 'det_classes')
_INT32_OUTPUTS = ('num_dets', 'det_classes')


def build(program: Program) -> Any:
    """Return the program as an ONNX model, without the plugin.

    Args:
        program: Of ``decoded`` or ``raw`` outputs.
    """
    return onnx.build(program)


def checked_form(metadata: Metadata) -> Metadata:
    """Return the metadata of what ONNX Runtime runs: the file up to the plugin.

    Args:
        metadata: Of the file.

    Raises:
        ConfigError: Post-processing that the plugin does not have.
    """
    if metadata.end != 'postprocess':
        return replace(metadata, format='onnx')
    nms = metadata.nms
    if nms.get('method', 'gaussian') != 'hard':
        raise ConfigError(
            '--nms soft: TensorRT has hard NMS only; add --nms hard, or --end raw or decoded'
        )
    if nms.get('clip', 'none') != 'none':
        raise ConfigError(
            f'postprocessor.clip={nms["clip"]}: TensorRT clips no boxes; set it to none, or add '
            '--end decoded'
        )
    return replace(metadata, format='onnx', end='decoded')


def save(model: Any, metadata: Metadata, path: Path) -> None:
    """Write a model.

    Args:
        model: From `build`.
        metadata: Goes into its ``metadata_props``. With the end ``postprocess`` the plugin follows.
        path: ``.onnx``.
    """
    if metadata.end == 'postprocess':
        model = with_plugin(model, metadata.nms)
    onnx.save(model, metadata, path)


def with_plugin(model: Any, nms: Mapping[str, Any]) -> Any:
    """Return a copy of a model of decoded outputs that ends in the plugin.

    Args:
        model: Gives ``boxes`` ``(B, N, 4)`` and ``scores`` ``(B, N, C)``.
        nms: Arguments of the `DetectionPostProcessor`.
    """
    made = need('onnx', onnx.EXTRA)
    helper, kinds = made.helper, made.TensorProto
    rows = nms.get('max_per_img', 100)
    ends = type(model)()
    ends.CopyFrom(model)
    node = helper.make_node(
        PLUGIN,
        list(OUTPUTS['decoded']),
        list(PLUGIN_OUTPUTS),
        name='nms',
        domain=DOMAIN,
        plugin_version='1',
        score_threshold=float(nms.get('score_thr') or 0.0),
        iou_threshold=float(nms.get('iou_thr', 0.5)),
        max_output_boxes=int(rows),
        background_class=-1,
        score_activation=0,  # they are scores
        class_agnostic=int(not nms.get('class_wise', True)),
        box_coding=0,  # corners
    )
    ends.graph.node.append(node)
    batch = ends.graph.output[0].type.tensor_type.shape.dim[0].dim_param or 'batch'
    shapes: tuple[list[Any], ...] = ([batch, 1], [batch, rows, 4], [batch, rows], [batch, rows])
    del ends.graph.output[:]
    for name, shape in zip(PLUGIN_OUTPUTS, shapes, strict=True):
        kind = kinds.INT32 if name in _INT32_OUTPUTS else kinds.FLOAT
        ends.graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    ends.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return ends


def without_plugin(model: Any) -> Any:
    """Return a copy of a file's model up to the plugin, which ONNX Runtime runs.

    Args:
        model: As read from a file.
    """
    made = need('onnx', onnx.EXTRA)
    known = Metadata.from_json(next(x.value for x in model.metadata_props if x.key == KEY), '')
    begins = type(model)()
    begins.CopyFrom(model)
    if known.end == 'postprocess':
        (node,) = (x for x in begins.graph.node if x.op_type == PLUGIN)
        begins.graph.node.remove(node)
        del begins.graph.output[:]
        names = zip(node.input, ((4,), (len(known.classes),)), strict=True)
        for name, last in names:
            value = made.helper.make_tensor_value_info(
                name, made.TensorProto.FLOAT, ['batch', 'anchors', *last]
            )
            begins.graph.output.append(value)
        (domain,) = (x for x in begins.opset_import if x.domain == DOMAIN)
        begins.opset_import.remove(domain)
    made.helper.set_model_props(begins, {KEY: checked_form(known).to_json()})
    return begins


def load(path: Path) -> onnx.OnnxRuntime:
    """Load what precedes the plugin, by ONNX Runtime, to check it.

    Args:
        path: As `save` wrote it.
    """
    made = need('onnx', onnx.EXTRA)
    begins = without_plugin(made.load_model_from_string(path.read_bytes()))
    return onnx.load_content(begins.SerializeToString(), path)
