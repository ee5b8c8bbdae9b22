"""What a file of a runtime says about itself, as JSON inside the file: it needs no config."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from effdet_plugin.config.embedded import EMBEDDED
from effdet_plugin.errors import CheckpointError
from effdet_plugin.images import RESIZE_MODES

KEY = 'effdet_plugin'  # name of the text in metadata_props, rt_info or the archive
MAX_BYTES = 4 << 20  # of the text; a config is about 10 kB

# Names and order of the arrays that a file gives, by its end.
OUTPUTS = {
    'postprocess': ('boxes', 'scores', 'labels', 'num'),
    'decoded': ('boxes', 'scores'),
    'raw': ('logits', 'deltas'),
}
ENDS = tuple(OUTPUTS)
INPUTS = ('float', 'uint8')
PRECISIONS = ('fp32', 'fp16', 'dynamic', 'int8')
MAX_SIDE = 1 << 14
SIZE_STEP = 128  # the sides of an input of any size are multiples of this


@dataclass(frozen=True)
class Metadata:
    """What has to be known to feed a file and to read its outputs.

    Attributes:
        format: ``'onnx'``, ``'openvino'``, ``'pt2'``, ``'tensorrt'`` or ``'tflite'``.
        classes: Name of each label.
        image_size: (height, width) of the network input; None: any multiples of `SIZE_STEP`.
        mean: Of each channel, RGB, in 0..255.
        std: Likewise.
        pad_value: Value of the padding after normalisation.
        resize_mode: How an image meets the input size: ``'letterbox'`` fits it at the top left.
        resize_dtype: ``'uint8'`` rounds the resized image to whole grey levels, ``'float32'`` not.
        end: ``'postprocess'``, ``'decoded'`` or ``'raw'``; see `OUTPUTS`.
        nms: Arguments of the `DetectionPostProcessor` in the file, or of the one to run after it.
        input: ``'float'``: ``(B, 3, H, W)`` float32, normalised and padded. ``'uint8'``:
            ``(B, h, w, 3)`` RGB of any size.
        precision: Of the network: ``'fp32'``, ``'fp16'``, ``'dynamic'`` (8-bit weights) or
            ``'int8'``.
        version: Of this package, which wrote the file.
        checkpoint_sha256: Hash of the checkpoint that it was made from; '' for random weights.
        config: The config as in the checkpoint's ``meta['config']``, plain JSON.
        weights_sha256: Hash of a second file that holds the weights (OpenVINO's ``.bin``), or ''.
    """

    format: str
    classes: tuple[str, ...]
    image_size: tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad_value: float
    resize_mode: str
    resize_dtype: str
    end: str
    nms: Mapping[str, Any]
    input: str
    precision: str
    version: str
    checkpoint_sha256: str
    config: str
    weights_sha256: str = ''

    def to_json(self) -> str:
        """Return the metadata as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, source: str) -> 'Metadata':
        """Read the metadata of a file.

        Args:
            text: As `to_json` writes it; None if the file has none.
            source: The file, for messages.

        Raises:
            CheckpointError: The file is of another program, or its metadata is damaged.
        """
        if not text:
            raise CheckpointError(
                f'{source}: has no metadata of effdet_plugin; write the file with tools/export.py'
            )
        try:
            if len(text) > MAX_BYTES:
                raise ValueError('too large')
            found = json.loads(text)
            names = {field.name for field in fields(cls)}
            loaded = cls(**{k: _tuples(v) for k, v in found.items() if k in names})
            loaded._check()
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise CheckpointError(
                f'{source}: its metadata is damaged ({reason}); export it again'
            ) from None
        return loaded

    def as_checkpoint(self) -> dict[str, Any]:
        """Return the ``meta`` of a checkpoint with this config, for `embedded_config`."""
        return {'meta': {EMBEDDED: self.config, 'dataset_meta': {'classes': list(self.classes)}}}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the arrays that the file gives, in their order."""
        return OUTPUTS[self.end]

    def _check(self) -> None:
        """Check types and choices.

        Raises:
            ValueError: Names the field.
        """
        choices = {'end': ENDS, 'input': INPUTS, 'precision': PRECISIONS}
        choices |= {'resize_mode': RESIZE_MODES, 'resize_dtype': ('uint8', 'float32')}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f'{name} is none of {", ".join(known)}')
        texts = ('format', 'version', 'checkpoint_sha256', 'config', 'weights_sha256')
        good = {
            'texts': all(isinstance(getattr(self, name), str) for name in texts),
            'classes': _all(self.classes, str),
            'image_size': self.image_size is None
            or (
                _all(self.image_size, int, 2)
                and 0 < min(self.image_size) <= max(self.image_size) <= MAX_SIDE
            ),
            'mean': _all(self.mean, float, 3),
            'std': _all(self.std, float, 3) and all(self.std),
            'pad_value': isinstance(self.pad_value, int | float),
            'nms': isinstance(self.nms, dict),
        }
        for name, is_good in good.items():
            if not is_good:
                raise ValueError(f'{name} has another form')


def _all(values: Any, kind: type, number: int | None = None) -> bool:
    """Whether this is a tuple of one kind (an int is a float, too) and of this length."""
    kinds = (int, float) if kind is float else kind
    return (
        isinstance(values, tuple)
        and number in (None, len(values))
        and all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)
    )


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
