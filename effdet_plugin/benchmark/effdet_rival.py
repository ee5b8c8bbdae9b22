"""effdet 0.4.1 (rwightman/efficientdet-pytorch) with the same weights, for comparisons.

Its own parts are used as its validation script does: PIL images, ``ResizePad``, collation as
uint8, normalisation of the batch, ``DetBenchPredict``.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from effdet_plugin.benchmark.timing import Stopwatch
from effdet_plugin.convert import convert
from effdet_plugin.errors import CheckpointError, ConfigError, InstallError
from effdet_plugin.trained_model import TrainedModel

NO_NMS = "effdet's NMS is left out, since torchvision's compiled operators do not load here"


def load_rival(trained: TrainedModel, size: tuple[int, int]) -> nn.Module:
    """Build effdet's network with the weights of ours.

    Args:
        trained: Our network, of the reference's family.
        size: (height, width) of the input.

    Raises:
        InstallError: effdet is not installed.
        ConfigError: effdet has no such network.
    """
    try:
        import effdet
    except ImportError as error:
        raise InstallError(f'--against effdet: {error}; pip install effdet==0.4.1') from error
    state, name = _weights(trained)
    network: nn.Module = effdet.create_model(
        f'tf_efficientdet_{name}',
        pretrained=False,
        pretrained_backbone=False,
        image_size=size,
        num_classes=len(trained.classes),
    )
    network.load_state_dict(state)
    return network.to(next(trained.model.parameters()).device).eval()


def network_forms(trained: TrainedModel, size: tuple[int, int], compiled: bool) -> list[Any]:
    """Make effdet's network as forms to be timed: eager, channels_last and perhaps compiled."""
    from effdet_plugin.benchmark.forms import Form

    made, classes = [], len(trained.classes)
    for name in ('eager', 'channels_last', *(['compiled'] if compiled else [])):
        network = load_rival(trained, size)
        if name == 'channels_last':
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        call: Callable[[Tensor], Any] = network
        if name == 'compiled':
            call = torch.compile(network, dynamic=False)
        run = _in_order(call) if name == 'channels_last' else call
        made.append(Form(f'effdet {name}', run, partial(_arrays, classes=classes)))
    return made


class RivalDetector:
    """effdet from image files to detections.

    Args:
        trained: Our network, whose weights and pixel statistics are used.
        size: (height, width) of the input.
        compiled: Compile the network.
    """

    def __init__(
        self, trained: TrainedModel, size: tuple[int, int], compiled: bool = False
    ) -> None:
        from effdet import DetBenchPredict
        from effdet.data.loader import DetectionFastCollate
        from effdet.data.transforms import ImageToNumpy, ResizePad

        network = load_rival(trained, size)
        self.bench = DetBenchPredict(network).to(next(network.parameters()).device).eval()
        self._network = torch.compile(network, dynamic=False) if compiled else network
        normal = trained.model.data_preprocessor
        self.mean, self.std = normal.mean.view(1, 3, 1, 1), normal.std.view(1, 3, 1, 1)
        fill = tuple(round(x) for x in normal.mean.flatten().tolist())
        self._steps = (ResizePad(size, fill_color=fill), ImageToNumpy())
        self._collate = DetectionFastCollate()
        self.has_nms = compiled_nms_works()

    def __call__(self, files: Sequence[Path], watch: Stopwatch) -> list[Tensor]:
        """Detect; the parts are decode, prepare, network and post-processing.

        Returns:
            ``(100, 6)`` for each image: xyxy in pixels of the image, score, label from 1.
        """
        opened = [Image.open(file).convert('RGB') for file in files]
        watch.lap('decode')
        batch = []
        for image in opened:
            notes: dict[str, Any] = {'img_size': image.size}
            for step in self._steps:
                image, notes = step(image, notes)
            batch.append((image, notes))
        pixels, info = self._collate(batch)
        inputs = pixels.to(self.mean.device).float().sub_(self.mean).div_(self.std)
        watch.lap('prepare')
        outputs = self._network(inputs)
        watch.lap('network')
        found = self._post_process(outputs, info)
        watch.lap('post-processing')
        return found

    def _post_process(self, outputs: Any, info: dict[str, Tensor]) -> list[Tensor]:
        from effdet.anchors import decode_box_outputs
        from effdet.bench import _batch_detection, _post_process

        bench = self.bench
        best = _post_process(
            *outputs,
            num_levels=bench.num_levels,
            num_classes=bench.num_classes,
            max_detection_points=bench.max_detection_points,
        )
        scale, size = info['img_scale'].to(best[0].device), info['img_size'].to(best[0].device)
        anchors = bench.anchors.boxes
        if self.has_nms:
            limit = bench.max_det_per_image
            found = _batch_detection(
                len(scale), best[0], best[1], anchors, best[2], best[3], scale, size, limit
            )
            return list(found)
        logits, deltas, indices, classes = best
        rows = []
        for i in range(len(scale)):  # as its generate_detections, without the call of the NMS
            boxes = decode_box_outputs(deltas[i].float(), anchors[indices[i]], output_xyxy=True)
            scores = logits[i].sigmoid().float()
            top = slice(bench.max_det_per_image)
            boxes = boxes[top] * scale[i]
            rows.append(torch.cat([boxes, scores[top], classes[i, top, None] + 1.0], 1))
        return rows


def compiled_nms_works() -> bool:
    """Return whether torchvision's NMS, which effdet calls, can run."""
    import torchvision

    try:
        torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _weights(trained: TrainedModel) -> tuple[dict[str, Tensor], str]:
    """Return the weights by effdet's names, and the network's name."""
    names = list(trained.classes)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'ours.pth'
        meta = {'dataset_meta': {'classes': names}}
        torch.save({'state_dict': trained.model.state_dict(), 'meta': meta}, file)
        try:
            converted = convert(file, classes=names, to='effdet')
        except CheckpointError as error:
            raise ConfigError(f'--against effdet: effdet has no such network ({error})') from error
    return converted.state_dict, converted.report.model


def _in_order(call: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return lambda images: call(images.contiguous(memory_format=torch.channels_last))


def _arrays(found: Any, classes: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return effdet's outputs as our raw arrays: its boxes are (ty, tx, th, tw)."""
    logits, deltas = (
        torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, n) for x in maps], 1)
        for maps, n in zip(found, (classes, 4), strict=True)
    )
    return {'logits': logits.cpu().numpy(), 'deltas': deltas[..., [1, 0, 3, 2]].cpu().numpy()}
