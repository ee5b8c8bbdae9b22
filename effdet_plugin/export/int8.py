"""Integer files: ranges of all maps measured on images, weights and maps of the network in 8 bits.

Only the network is changed: what lies between its first and its last convolutions. Preparation and
post-processing stay float32, since coordinates and scores need more than 256 values.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from effdet_plugin.export.extras import need, quiet
from effdet_plugin.export.program import INPUT_NAME
from effdet_plugin.export.runtime import Array

Feed = Callable[[], Iterator[Array]]  # starts over the images, each as a batch of the file's input


def between_convolutions(
    nodes: list[Any], inputs: Callable[[Any], list[Any]], is_convolution: Callable[[Any], bool]
) -> set[Any]:
    """Return the nodes of a network: convolutions, and what lies between two of them.

    Args:
        nodes: Of a graph, each after those that it reads.
        inputs: Nodes that a node reads.
        is_convolution: Whether a node is one.
    """
    behind: set[Any] = set()  # a convolution, or after one
    for node in nodes:
        if is_convolution(node) or any(other in behind for other in inputs(node)):
            behind.add(node)
    before: set[Any] = set()  # a convolution, or before one
    for node in reversed(nodes):
        if is_convolution(node) or node in before:
            before.add(node)
            before.update(inputs(node))
    return behind & before


def network_nodes(graph: Any) -> set[str]:
    """Return the names of the network's nodes in a graph of ONNX."""
    made = {name: node.name for node in graph.node for name in node.output}
    nodes = {node.name: node for node in graph.node}
    return between_convolutions(
        list(nodes),
        lambda name: [made[value] for value in nodes[name].input if value in made],
        lambda name: nodes[name].op_type == 'Conv',
    )


def quantize_onnx(model: Any, feed: Feed) -> Any:
    """Return an ONNX model whose network computes with 8 bits, in pairs of QuantizeLinear.

    Weights have a scale for each output channel, maps one from their least to their largest value.

    Args:
        model: Of float32; it is not changed.
        feed: Images to measure with.
    """
    onnx = need('onnx', 'onnx')
    quantization = need('onnxruntime.quantization', 'onnx')

    class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        """Gives the images one by one."""

        def __init__(self) -> None:
            self.images = feed()

        def get_next(self) -> dict[str, Array] | None:
            """Return the next input, None at the end."""
            image = next(self.images, None)
            return None if image is None else {INPUT_NAME: image}

    network = network_nodes(model.graph)
    copy = type(model)()
    copy.CopyFrom(model)
    with quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'int8.onnx'
        quantization.quantize_static(
            copy,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if node.name not in network],
        )
        made = onnx.load(path)
    return made
