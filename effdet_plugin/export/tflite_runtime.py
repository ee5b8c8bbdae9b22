"""A ``.tflite`` of ours run by ai-edge-litert, on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export import tflite_graph, tflite_metadata
from effdet_plugin.export.extras import need
from effdet_plugin.export.metadata import KEY, Metadata
from effdet_plugin.export.runtime import Array, Outputs, check_images
from effdet_plugin.export.tflite_graph import DETECTION_OP
from effdet_plugin.files import read_bytes

EXTRA = 'tflite'
_LEAST, _MOST = 1e-30, 1 - 2**-24  # of scores whose logits are finite
_HALF_STEP = 1 / 512  # of an 8-bit score: 0 stands for all below


class TfliteRuntime:
    """An interpreter of ai-edge-litert.

    Args:
        interpreter: Of our file, tensors allocated.
        metadata: Of the file.
    """

    def __init__(self, interpreter: Any, metadata: Metadata) -> None:
        self.interpreter = interpreter
        self.metadata = metadata
        (self._input,) = interpreter.get_input_details()
        self._outputs = [detail['index'] for detail in interpreter.get_output_details()]
        self._mean = np.array(metadata.mean, np.float32)
        self._std = np.array(metadata.std, np.float32)
        self._normalised = tflite_metadata.normalisation(metadata) is not None

    def __call__(self, images: Array) -> Outputs:
        """See `effdet_plugin.export.runtime.Runtime`; the file takes one image at a time."""
        check_images(images, self.metadata)
        found = [self._one(image) for image in images]
        return {name: np.stack([one[name] for one in found]) for name in self.metadata.outputs}

    def _one(self, image: Array) -> Outputs:
        """``(3, H, W)`` float32, normalised -> the arrays of one image, without batch."""
        self.interpreter.set_tensor(self._input['index'], self._as_input(image)[None])
        self.interpreter.invoke()
        arrays = [self.interpreter.get_tensor(index)[0] for index in self._outputs]
        if self.metadata.end == 'raw':
            codes, scores = arrays
            limits = (_LEAST, _MOST)
            if self.metadata.precision == 'int8':
                limits = (_HALF_STEP, 1 - _HALF_STEP)
            known = np.clip(scores.astype(np.float64), *limits)
            logits = np.log(known) - np.log1p(-known)
            return {
                'logits': logits.astype(np.float32),
                'deltas': np.ascontiguousarray(codes[:, [1, 0, 3, 2]]),
            }
        return self._detections(*arrays)

    def _as_input(self, image: Array) -> Array:
        """``(3, H, W)`` float32, normalised -> ``(H, W, 3)`` of the file's type."""
        pixels = image.transpose(1, 2, 0)
        if not self._normalised:
            pixels = pixels * self._std + self._mean
        kind = self._input['dtype']
        if kind == np.float32:
            return np.ascontiguousarray(pixels)
        scale, zero = self._input['quantization']
        limits = np.iinfo(kind)
        return np.clip(np.rint(pixels / scale) + zero, limits.min, limits.max).astype(kind)

    def _detections(self, boxes: Array, classes: Array, scores: Array, count: Array) -> Outputs:
        """The operator's outputs -> detections; rows after the count hold anything."""
        height, width = self.metadata.image_size or (1, 1)
        number = int(count)
        rows = np.arange(len(scores)) < number
        sides = np.array([width, height, width, height], np.float32)
        return {
            'boxes': np.where(rows[:, None], boxes[:, [1, 0, 3, 2]] * sides, np.float32(0)),
            'scores': np.where(rows, scores, np.float32(0)),
            'labels': np.where(rows, classes.astype(np.int64), -1),
            'num': np.array(number, np.int64),
        }


def load(path: Path, device: str = 'cpu', threads: int | None = None) -> TfliteRuntime:
    """Load a ``.tflite``; see `effdet_plugin.export.runtime.load_runtime`.

    Raises:
        CheckpointError: The file is damaged, of another program, or needs operators of a library.
        ConfigError: Another device than the CPU.
        InstallError: ai-edge-litert is not installed.
    """
    litert = need('ai_edge_litert.interpreter', EXTRA)
    if device.split(':')[0] != 'cpu':
        raise ConfigError(f'device {device}: .tflite files run on the CPU here; use cpu')
    content = read_bytes(path)
    metadata = _metadata(content, path)
    try:
        interpreter = litert.Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = ' '.join(str(error).split())[:160]
        raise CheckpointError(
            f'{path}: LiteRT cannot load it ({reason}); export it again'
        ) from None
    _check_tensors(interpreter, metadata, path)
    return TfliteRuntime(interpreter, metadata)


def _metadata(content: bytes, path: Path) -> Metadata:
    """Read the metadata of a file, whose end must be there, too.

    Raises:
        CheckpointError: It is damaged, of another program, or has foreign operators.
    """
    damaged = CheckpointError(f'{path}: damaged, or cut; export it again')
    try:
        text = tflite_graph.metadata_of(content, KEY)
        foreign = [x for x in tflite_graph.custom_operators(content) if x != DETECTION_OP]
    except Exception as error:  # reading a damaged flatbuffer raises a dozen types
        raise damaged from error
    metadata = Metadata.from_json(
        None if text is None else text.decode(errors='replace'), str(path)
    )
    if foreign:
        raise CheckpointError(f'{path}: needs operators of a library: {foreign[0][:60]!r}')
    try:
        labels = tflite_metadata.labels_of(content)
    except ValueError as error:
        raise damaged from error
    if len(labels) != len(metadata.classes):
        raise damaged
    return metadata


def _check_tensors(interpreter: Any, metadata: Metadata, path: Path) -> None:
    """Check the inputs and outputs of a graph against its metadata.

    Raises:
        CheckpointError: They do not fit.
    """
    size = metadata.image_size or (0, 0)
    inputs = [
        (tuple(int(side) for side in x['shape']), x['dtype'])
        for x in interpreter.get_input_details()
    ]
    outputs = [len(x['shape']) for x in interpreter.get_output_details()]
    expected = {'postprocess': [3, 2, 2, 1], 'raw': [3, 3]}.get(metadata.end)
    known = [((1, *size, 3), kind) for kind in (np.float32, np.uint8, np.int8)]
    if len(inputs) != 1 or inputs[0] not in known or outputs != expected:
        raise CheckpointError(f'{path}: its inputs and outputs are not those of its metadata')
