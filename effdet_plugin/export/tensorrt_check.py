"""What a TensorRT engine must give: images for trtexec, and its answer beside ours.

``benchmarks/tensorrt.sh`` calls both functions. What an engine has to give is computed by ONNX
Runtime from the part of the file before the plugin, and by our NMS with the plugin's limits.
"""

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export import check, tensorrt
from effdet_plugin.export.images import Preparation, images_in
from effdet_plugin.export.metadata import OUTPUTS, Metadata
from effdet_plugin.export.runtime import Array, Outputs
from effdet_plugin.files import read_json, write_atomically
from effdet_plugin.images import read_image
from effdet_plugin.ops.boxes import gather_rows
from effdet_plugin.ops.nms import suppress

PLUGIN_CANDIDATES = 4096  # see effdet_plugin.export.tensorrt
INPUT_FILE, EXPECTED_FILE = 'images.bin', 'expected.npz'


def prepare(file: Path, images: Path, out: Path, count: int = 8) -> str:
    """Write the input of an engine and the detections that it must find.

    Args:
        file: Written by ``tools/export.py --format tensorrt``.
        images: Folder of images.
        out: Folder for `INPUT_FILE`, float32 as trtexec reads it, and `EXPECTED_FILE`.
        count: How many images, at most.

    Returns:
        The shape of the input, as trtexec takes it: ``8x3x512x512``.

    Raises:
        ConfigError: A file of another end than ``postprocess``.
        DatasetError: There are no images.
    """
    runtime = tensorrt.load(file)
    known = runtime.metadata
    if known.end != 'decoded' or known.image_size is None:
        raise ConfigError(f'{file}: has no plugin to check: export it with --end postprocess')
    paths = images_in(images)[:count]
    numbers = {'mean': known.mean, 'std': known.std, 'pad_value': known.pad_value}
    preprocessor = MODELS.build({'type': 'EfficientDetDataPreprocessor', **numbers})
    model: Any = SimpleNamespace(data_preprocessor=preprocessor)
    resize = Preparation(model, known.image_size, known.resize_dtype, known.resize_mode)
    batch = np.stack([resize(read_image(path)) for path in paths])
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / INPUT_FILE, batch.tobytes())
    packed = BytesIO()
    arrays: dict[str, Any] = {**after(runtime(batch), known)}
    np.savez(packed, **arrays)
    write_atomically(out / EXPECTED_FILE, packed.getvalue())
    return 'x'.join(str(side) for side in batch.shape)


def after(decoded: Outputs, metadata: Metadata) -> dict[str, Array]:
    """Return the detections of decoded outputs, as the plugin finds them.

    Args:
        decoded: ``boxes`` and ``scores``.
        metadata: Of the file.
    """
    nms = metadata.nms
    boxes, scores = (torch.tensor(decoded[name]) for name in OUTPUTS['decoded'])
    values, flat = scores.flatten(1).topk(min(PLUGIN_CANDIDATES, scores[0].numel()), dim=1)
    rows, labels = flat // scores.shape[2], flat % scores.shape[2]
    keep, kept = suppress(
        gather_rows(boxes, rows), values, labels, 'hard', nms.get('iou_thr', 0.5),
        score_thr=nms.get('score_thr') or 0.0, max_per_img=nms.get('max_per_img', 100),
        class_wise=nms.get('class_wise', True),
    )  # fmt: skip
    real = kept > 0
    found = gather_rows(boxes, rows.gather(1, keep))
    return {
        'boxes': torch.where(real[..., None], found, 0.0).numpy(),
        'scores': torch.where(real, kept, 0.0).numpy(),
        'labels': torch.where(real, labels.gather(1, keep), -1).numpy(),
        'num': real.sum(1).numpy(),
    }


def compare(file: Path, answer: Path, out: Path, precision: str = 'fp32') -> str:
    """Compare the answer of an engine with what it must find.

    Args:
        file: As for `prepare`.
        answer: What trtexec wrote by ``--exportOutput``.
        out: Folder of `EXPECTED_FILE`.
        precision: Of the engine, for the bounds: TensorRT's own numbers differ by more than those
            of a CPU, so ``'fp32'``, which uses TF32, gets those of ``'fp16'``.

    Returns:
        The differences, in a line.

    Raises:
        CheckpointError: They are over their bounds, or the answer is damaged.
    """
    known = tensorrt.load(file).metadata
    if precision not in check.BOUNDS:
        raise ConfigError(f'precision {precision}: choose one of {", ".join(check.BOUNDS)}')
    bounds = 'fp16' if precision == 'fp32' else precision
    changes = {'end': 'postprocess', 'precision': bounds}
    complete = Metadata(**{**vars(known), **changes})
    with np.load(out / EXPECTED_FILE) as stored:
        expected = dict(stored)
    found = _answer(answer, expected)
    side = max(known.image_size or (1,))
    difference = check.compare(expected, found, complete, side)
    if over := check.failures(difference, complete):
        raise CheckpointError(f'{file}: the engine differs from ONNX Runtime: {over}')
    return difference.text(complete)


def _answer(path: Path, expected: Outputs) -> dict[str, Array]:
    """Read trtexec's JSON: a list of outputs with name, dimensions and values.

    Raises:
        CheckpointError: It has another form.
    """
    try:
        given = {one['name']: one['values'] for one in read_json(path)}
        arrays: dict[str, Array] = {
            name: np.asarray(given[plugin], np.float64).reshape(expected[name].shape)
            for name, plugin in zip(
                ('num', 'boxes', 'scores', 'labels'), tensorrt.PLUGIN_OUTPUTS, strict=True
            )
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f'{path}: no answer of trtexec ({error})') from None
    arrays['num'] = arrays['num'].astype(np.int64)
    # Behind the count the plugin leaves what was there.
    count = arrays['scores'].shape[1]
    rows: Any = arrays['num'].reshape(-1, 1)
    is_rest = np.arange(count) >= rows
    for name, value in (('boxes', 0.0), ('scores', 0.0), ('labels', -1)):
        rest: Any = arrays[name]
        rest[is_rest] = value
    return arrays
