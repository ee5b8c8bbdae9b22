"""Smaller ``.tflite`` graphs by ai-edge-quantizer: half floats, 8-bit weights, or all in 8 bits."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from effdet_plugin.errors import ConfigError
from effdet_plugin.export import tflite_metadata
from effdet_plugin.export.extras import need, quiet
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.runtime import Array

EXTRA = 'tflite'
_WITH_WEIGHTS = ('CONV_2D', 'DEPTHWISE_CONV_2D')  # of these networks
_BIAS_STEPS = 2**30  # of 2**31, so that the products have room beside it
_DEAD = 1e-3  # filters below this share of the largest one do not widen a range for the others


class Images(Protocol):
    """Images to calibrate with, as often as they are asked for."""

    def __len__(self) -> int:
        """Return their number."""

    def __iter__(self) -> Iterator[Array]:
        """Yield ``(3, H, W)`` float32, normalised."""


def quantized(content: bytes, metadata: Metadata, images: Images | None) -> bytes:
    """Return a converted graph in the precision of a file.

    Args:
        content: Float graph with box codes and scores as its outputs.
        metadata: Of the file; its precision is ``'fp16'`` (weights stored as half floats, computed
            in float), ``'dynamic'`` (8-bit weights; the ranges of maps are taken at run time) or
            ``'int8'`` (weights and maps in 8 bits).
        images: For the ranges of ``'int8'``.

    Raises:
        ConfigError: No images for ``'int8'``.
    """
    quantizer = need('ai_edge_quantizer.quantizer', EXTRA).Quantizer(bytearray(content))
    if metadata.precision == 'fp16':
        _halve(quantizer)
    else:
        recipe = need('ai_edge_quantizer.recipe', EXTRA)
        is_static = metadata.precision == 'int8'
        chosen = recipe.static_wi8_ai8 if is_static else recipe.dynamic_wi8_afp32
        quantizer.load_quantization_recipe(chosen())
    ranges = None
    with quiet():
        if metadata.precision == 'int8':
            if images is None or not len(images):
                raise ConfigError('--precision int8: give images to calibrate with by --calib DIR')
            ranges = _ranges(quantizer, content, _Samples(images, metadata))
        made = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(made.quantized_model)


def _halve(quantizer: Any) -> None:
    """Store the weights of convolutions as half floats."""
    known = need('ai_edge_quantizer.qtyping', EXTRA)
    algorithms = need('ai_edge_quantizer.algorithm_manager', EXTRA).AlgorithmName
    config = known.OpQuantizationConfig(
        weight_tensor_config=known.TensorQuantizationConfig(
            num_bits=16, dtype=known.TensorDataType.FLOAT
        ),
        compute_precision=known.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for name in _WITH_WEIGHTS:
        quantizer.update_quantization_recipe(
            '.*', known.TFLOperationName(name), config, algorithms.FLOAT_CASTING
        )


class _Samples:
    """Inputs of the graph for its calibration.

    The first one has the darkest and the brightest value, too: with them the input's scale is the
    normalisation's, so that whole grey levels stay whole.

    Args:
        images: Normalised.
        metadata: Of the file.
    """

    def __init__(self, images: Images, metadata: Metadata) -> None:
        self.images = images
        shared = tflite_metadata.normalisation(metadata)
        self.mean = np.array(metadata.mean, np.float32)
        self.std = np.array(metadata.std, np.float32)
        self.is_normalised = shared is not None
        mean, std = shared or (0.0, 1.0)
        self.limits = [np.float32((value - mean) / std) for value in (0.0, 255.0)]

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Yield the graph's argument for each image."""
        for number, image in enumerate(self.images):
            pixels = image.transpose(1, 2, 0)
            if not self.is_normalised:
                pixels = pixels * self.std + self.mean
            sample = np.array(pixels[None], np.float32)
            if number == 0:
                sample[0, 0, :2, :] = np.array(self.limits)[:, None]
            yield {'args_0': sample}


def _ranges(quantizer: Any, content: bytes, samples: _Samples) -> Any:
    """Return the smallest and largest value of each map over all images.

    The quantizer's default is a moving average, in which the first image weighs most: the best
    scores were cut off.
    """
    # Outputs stay float: the detection operator takes no integers.
    known = need('ai_edge_quantizer.qtyping', EXTRA)
    algorithms = need('ai_edge_quantizer.algorithm_manager', EXTRA).AlgorithmName
    quantizer.update_quantization_recipe(
        '.*', known.TFLOperationName.OUTPUT, algorithm_key=algorithms.NO_QUANTIZE
    )
    calibrator = need('ai_edge_quantizer.calibrator', EXTRA).Calibrator(
        content,
        num_threads=1,
        qsv_update_func=need('ai_edge_quantizer.utils.qsv_utils', EXTRA).min_max_update,
    )
    for sample in samples:  # one by one: it makes a list of what it gets
        calibrator.calibrate({'serving_default': [sample]}, quantizer._recipe_manager)
    ranges = calibrator.get_model_qsvs()
    _make_room_for_biases(content, ranges)
    return ranges


def _make_room_for_biases(content: bytes, ranges: Any) -> None:
    """Widen the range of a convolution's input where its bias does not fit into 32 bits.

    A bias is counted in steps of the input's times the weights'. After a training of a few steps
    both are tiny beside the bias of the classes, -4.6: it was cut off, and sums ran over.
    """
    interpreter = need('ai_edge_litert.interpreter', EXTRA).Interpreter(model_content=content)
    names = {tensor['index']: tensor['name'] for tensor in interpreter.get_tensor_details()}
    for operator in interpreter._get_ops_details():
        if operator['op_name'] not in _WITH_WEIGHTS:
            continue
        taken, weight, bias = operator['inputs'][:3]
        if names[taken] not in ranges:  # the graph's input, whose steps are grey levels
            continue
        # Filters come first, but for the one filter per channel of a depthwise convolution.
        axis = -1 if operator['op_name'] == 'DEPTHWISE_CONV_2D' else 0
        filters = np.moveaxis(interpreter.get_tensor(weight), axis, 0)
        largest = np.abs(filters.reshape(len(filters), -1)).max(axis=1)
        steps = np.maximum(largest, _DEAD * largest.max()) / 127
        least = np.abs(interpreter.get_tensor(bias)) / (_BIAS_STEPS * steps)
        limits = ranges[names[taken]]
        width = limits['max'] - limits['min']
        wanted = 255 * least.max()
        if (width < wanted).all():
            limits['max'] = limits['max'] + (wanted - width)
