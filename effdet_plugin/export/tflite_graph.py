"""Changes of a converted ``.tflite`` graph, by the object form of TensorFlow Lite's schema.

A model is the ``ModelT`` of ``ai_edge_litert.schema_py_generated``. The fields are those of
tensorflow/lite/schema/schema.fbs.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from effdet_plugin.errors import CheckpointError
from effdet_plugin.export.extras import need
from effdet_plugin.export.runtime import Array

EXTRA = 'tflite'
DETECTION_OP = 'TFLite_Detection_PostProcess'
OUTPUTS = ('detection_boxes', 'detection_classes', 'detection_scores', 'num_detections')
_OPTION = 'nms_score_threshold'


class DetectionOptions(NamedTuple):
    """Options of the detection operator.

    Attributes:
        num_classes: Number of classes.
        max_detections: Rows of the output.
        iou_thr: IoU above which the box of the lower score is dropped, whatever its class.
        score_thr: Least score.
    """

    num_classes: int
    max_detections: int
    iou_thr: float
    score_thr: float


def schema() -> Any:
    """Return the module of the schema.

    Raises:
        InstallError: ``ai-edge-litert`` is not installed.
    """
    return need('ai_edge_litert.schema_py_generated', EXTRA)


def unpacked(content: bytes) -> Any:
    """Return a file's content as objects, its buffers inside.

    The quantiser stores buffers behind the flatbuffer, where only a file with the same offsets
    finds them.
    """
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def packed(model: Any) -> bytes:
    """Return the flatbuffer of a model."""
    flatbuffers = need('flatbuffers', EXTRA)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b'TFL3')
    return bytes(builder.Output())


def use_left_pixels(model: Any) -> int:
    """Give nearest resizes the source index ``floor(i * h / H)`` of PyTorch; return their number.

    The converter sets ``half_pixel_centers``, with which maps of 3, 5, 7, ... pixels take other
    source pixels, without an error. Without it the operator is of version 2 at most, which older
    runtimes and the compiler of the Edge TPU know (google-coral/edgetpu#187).
    """
    known = schema()
    found = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            if _code(model, operator) == known.BuiltinOperator.RESIZE_NEAREST_NEIGHBOR:
                operator.builtinOptions.halfPixelCenters = False
                code = model.operatorCodes[operator.opcodeIndex]
                code.version = min(code.version, 2)
                found += 1
    return found


def append_detection(model: Any, anchors: Array, options: DetectionOptions) -> None:
    """Append the operator that decodes and suppresses, and make its outputs the graph's.

    ``use_regular_nms`` stays off: with it the operator loses detections when it has more than one
    thread (tensorflow/tensorflow#56058).

    Args:
        model: Its outputs are box codes ``(1, N, 4)`` (ty, tx, th, tw) and scores ``(1, N, C)``,
            float32; changed in place.
        anchors: ``(N, 4)`` float32 (y, x, h, w), centre and size as shares of the image.
        options: Of the operator.
    """
    known = schema()
    graph = model.subgraphs[0]
    boxes, scores = outputs_of(graph)
    buffer = known.BufferT()
    buffer.data = np.frombuffer(anchors.astype('<f4').tobytes(), np.uint8)
    model.buffers.append(buffer)
    table = _add_tensor(graph, 'anchors', anchors.shape, len(model.buffers) - 1)
    rows = options.max_detections
    shapes = ((1, rows, 4), (1, rows), (1, rows), (1,))
    outputs = [_add_tensor(graph, *pair) for pair in zip(OUTPUTS, shapes, strict=True)]
    code = known.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = known.BuiltinOperator.CUSTOM
    code.customCode, code.version = DETECTION_OP, 1
    model.operatorCodes.append(code)
    operator = known.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [boxes, scores, table], outputs
    graph.operators.append(operator)
    set_score_thr(model, options.score_thr, options)
    _set_outputs(model, dict(zip(OUTPUTS, outputs, strict=True)))


def set_score_thr(model: Any, value: float, options: DetectionOptions) -> None:
    """Set the least score of the detection operator, the last of the graph.

    Args:
        model: From `append_detection`.
        value: Least score.
        options: Its other options.
    """
    flexbuffers = need('flatbuffers.flexbuffers', EXTRA)
    fields: Mapping[str, Any] = {
        'max_detections': options.max_detections,
        'max_classes_per_detection': 1,
        'detections_per_class': options.max_detections,
        'use_regular_nms': False,
        _OPTION: float(value),
        'nms_iou_threshold': float(options.iou_thr),
        'num_classes': options.num_classes,
        **{f'{side}_scale': 1.0 for side in 'yxhw'},
    }
    operator = model.subgraphs[0].operators[-1]
    operator.customOptions = np.frombuffer(flexbuffers.Dumps(fields), np.uint8)
    operator.customOptionsFormat = schema().CustomOptionsFormat.FLEXBUFFERS


def take_uint8(model: Any) -> None:
    """Put a uint8 input before an int8 one: MediaPipe and the Task library refuse int8."""
    known = schema()
    graph = model.subgraphs[0]
    (old,) = graph.inputs
    tensor = graph.tensors[old]
    if tensor.type != known.TensorType.INT8:
        return
    new = _add_tensor(graph, 'image', tensor.shape, 0, known.TensorType.UINT8)
    quantization = known.QuantizationParametersT()
    quantization.scale = tensor.quantization.scale
    quantization.zeroPoint = [int(tensor.quantization.zeroPoint[0]) + 128]
    graph.tensors[new].quantization = quantization
    code = known.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = known.BuiltinOperator.QUANTIZE
    code.version = 2
    model.operatorCodes.append(code)
    operator = known.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [new], [old]
    graph.operators.insert(0, operator)
    graph.inputs = [new]
    for signature in model.signatureDefs or ():
        for entry in signature.inputs:
            entry.tensorIndex = new


def outputs_of(graph: Any) -> tuple[int, int]:
    """Return the tensors of box codes and of scores, which both have the anchors' axis.

    Raises:
        CheckpointError: The graph has other outputs.
    """
    if len(graph.outputs) == 2:
        first, second = (int(index) for index in graph.outputs)
        return first, second
    raise CheckpointError(f'the converted graph has {len(graph.outputs)} outputs in place of two')


def name_outputs(model: Any, names: Sequence[str]) -> None:
    """Name the outputs of the graph."""
    graph = model.subgraphs[0]
    for index, name in zip(graph.outputs, names, strict=True):
        graph.tensors[index].name = name
    _set_outputs(model, dict(zip(names, graph.outputs, strict=True)))


def shorten_names(model: Any) -> None:
    """Number the tensors: the converter names them after all modules of the source (0.2 MB)."""
    graph = model.subgraphs[0]
    ends = {*graph.inputs, *graph.outputs}
    for index, tensor in enumerate(graph.tensors):
        if index not in ends:
            tensor.name = str(index)


def set_metadata(model: Any, name: str, content: bytes) -> None:
    """Set a named text or flatbuffer of a model, which runtimes leave alone.

    Args:
        model: Changed in place.
        name: Of the entry.
        content: Replaces what an entry of this name has.
    """
    known = schema()
    data = np.frombuffer(content, np.uint8)
    model.metadata = model.metadata or []
    for entry in model.metadata:
        if _text(entry.name) == name:
            model.buffers[entry.buffer].data = data
            return
    buffer, entry = known.BufferT(), known.MetadataT()
    buffer.data = data
    model.buffers.append(buffer)
    entry.name, entry.buffer = name, len(model.buffers) - 1
    model.metadata.append(entry)


def metadata_of(content: bytes, name: str) -> bytes | None:
    """Return the content of a named entry of a file; None if it has none.

    Read without building objects of the whole file.

    Args:
        content: Of the file.
        name: Of the entry.
    """
    model = schema().Model.GetRootAs(content, 0)
    for number in range(model.MetadataLength()):
        entry = model.Metadata(number)
        if _text(entry.Name()) == name:
            data = model.Buffers(entry.Buffer()).DataAsNumpy()
            return data.tobytes() if isinstance(data, np.ndarray) else b''
    return None


def custom_operators(content: bytes) -> list[str]:
    """Return the names of a file's custom operators."""
    model = schema().Model.GetRootAs(content, 0)
    codes = [model.OperatorCodes(number) for number in range(model.OperatorCodesLength())]
    return [_text(code.CustomCode()) for code in codes if code.CustomCode() is not None]


def float_operators(model: Any) -> Counter[str]:
    """Return how many operators of each kind compute in float, such as ``{'CONV_2D': 2}``."""
    known = schema()
    graph = model.subgraphs[0]
    floats = (known.TensorType.FLOAT32, known.TensorType.FLOAT16)
    return Counter(
        name
        for operator in graph.operators
        if (name := operator_name(model, operator)) not in ('QUANTIZE', 'DEQUANTIZE')
        and any(graph.tensors[index].type in floats for index in operator.outputs)
    )


def operator_name(model: Any, operator: Any) -> str:
    """Return the name of an operator in the schema, of a custom one its own."""
    known = schema()
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return _text(code.customCode)
    number = _code(model, operator)
    names = {v: k for k, v in vars(known.BuiltinOperator).items() if isinstance(v, int)}
    return names.get(number, str(number))


def _code(model: Any, operator: Any) -> int:
    code = model.operatorCodes[operator.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _add_tensor(
    graph: Any, name: str, shape: Sequence[int], buffer: int = 0, kind: int | None = None
) -> int:
    """Append a tensor, float32 unless said otherwise; return its index."""
    known = schema()
    tensor = known.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, [int(side) for side in shape], buffer
    tensor.type = known.TensorType.FLOAT32 if kind is None else kind
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _set_outputs(model: Any, outputs: Mapping[str, int]) -> None:
    """Set the outputs of the graph and of its signature."""
    known = schema()
    model.subgraphs[0].outputs = list(outputs.values())
    for signature in model.signatureDefs or ():
        signature.outputs = []
        for name, index in outputs.items():
            entry = known.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            signature.outputs.append(entry)


def _text(name: Any) -> str:
    return name.decode(errors='replace') if isinstance(name, bytes) else str(name)
