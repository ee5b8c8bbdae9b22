"""One training step, ours or effdet's, served by a process of its own.

Each subject has a process: how the C library keeps freed memory is a setting of the process, and
so is the peak of its memory.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effdet_plugin.benchmark.counting import operators
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.config.options import parse_options
from effdet_plugin.engine.optim import keep_depthwise_float32
from effdet_plugin.engine.runner import keep_freed_memory
from effdet_plugin.trained_model import TrainedModel, device_of, load_trained

Losses = dict[str, Tensor]
BOXES_PER_IMAGE = 8  # COCO has 7.3 in a training image
CLIP_NORM = 10.0  # of effdet's train.py, and of our configs


@dataclass(frozen=True)
class Variant:
    """What a process trains, and how.

    Attributes:
        name: For the table.
        is_rival: effdet instead of this package.
        channels_last: Memory format of network and images.
        is_bf16: Forward pass under autocast to bfloat16.
        keeps_memory: Freed memory stays in the process (glibc), as `tools/train.py` sets it.
        switch: Option of the config that is set to True, such as ``'model.with_cp'``.
    """

    name: str
    is_rival: bool = False
    channels_last: bool = False
    is_bf16: bool = False
    keeps_memory: bool = True
    switch: str | None = None


def serve(connection: Connection, variant: Variant, settings: Settings, batch: int) -> None:
    """Build a subject and answer requests until None comes.

    ``'loss'``: the losses of one batch in eval mode, in which both packages compute the same;
    ``'step'``: wall and CPU ms of a step; ``'operators'``: how many a step calls; ``'peak'``: MB
    above the start; ``'memory'``: see `Subject.memory`. An exception is sent instead of an answer.
    """
    if variant.keeps_memory:
        keep_freed_memory()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        subject = Subject(variant, settings, batch)
        answers: dict[str, Callable[[], Any]] = {
            'loss': subject.loss,
            'step': subject.timed_step,
            'operators': subject.operators,
            'peak': subject.peak_mb,
            'memory': subject.memory,
        }
        connection.send('ready')
        while (request := connection.recv()) is not None:
            connection.send(answers[request]())
    except Exception as error:
        connection.send(error)


class Subject:
    """A network with its optimiser and a batch of random images."""

    def __init__(self, variant: Variant, settings: Settings, batch: int) -> None:
        self.device = device_of(settings.device)
        self.variant = variant
        torch.manual_seed(0)
        options = parse_options(settings.options or {})
        if variant.switch:
            options[variant.switch] = True
        trained = load_trained(
            settings.config,
            settings.models[0],
            self.device,
            image_size=settings.image_size,
            options=options,
        )
        if variant.is_bf16 and not variant.is_rival and self.device.type == 'cpu':
            keep_depthwise_float32(trained.model)  # as --amp does
        size = size_of(trained)
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)
        self.pixels = pixels.to(self.device)
        boxes, labels = random_boxes(batch, size, len(trained.classes), generator)
        kind = _Rival if variant.is_rival else _Ours
        self.trainer = kind(trained, size, boxes.to(self.device), labels.to(self.device), variant)
        if variant.channels_last:
            self.trainer.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._start_mb = self._now_mb()

    def loss(self) -> dict[str, float]:
        """Return the losses in eval mode: BN with its own statistics, no dropped connections."""
        self.trainer.network.eval()
        with torch.no_grad():
            losses = self._forward()
        self.trainer.network.train()
        return {name: float(value) for name, value in losses.items()}

    def step(self) -> None:
        """Train one step."""
        self.trainer.update(sum(self._forward().values(), torch.zeros(())))

    def timed_step(self) -> tuple[float, float]:
        """Train one step and return wall and CPU ms."""
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        self.step()
        self._wait()
        return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)

    def operators(self) -> int:
        """Return how many operators a step calls that compute or copy."""
        return operators(self.step).total()

    def memory(self) -> dict[str, float]:
        """Return MB of torch's allocations above those before a step.

        ``'kept'``: after the forward pass, what backward needs; ``'largest'``: the largest in the
        step. What the C library or a caching allocator holds beyond them is in `peak_mb`.
        """
        losses: Losses = {}

        def forward() -> None:
            losses.update(self._forward())

        def backward() -> None:
            self.trainer.update(sum(losses.values(), torch.zeros(())))

        kept, largest = allocated_mb(forward, self.device)
        return {
            'kept': kept,
            'largest': max(largest, kept + allocated_mb(backward, self.device)[1]),
        }

    def peak_mb(self) -> float:
        """Return the largest memory so far, above that before the first step."""
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self.device) / 2**20 - self._start_mb
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - self._start_mb

    def _forward(self) -> Losses:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.variant.is_bf16):
            return self.trainer.losses(self.pixels)

    def _now_mb(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device) / 2**20
        pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
        return pages * resource.getpagesize() / 2**20

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


def allocated_mb(call: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Return MB that torch holds after a call, and the largest during it, above those before."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        now, largest = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        return (now - before) / 2**20, (largest - before) / 2**20
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    # Torch has no counter on CPUs; the profiler notes each allocation.
    events = [e for e in found.profiler.kineto_results.events() if e.name() == '[memory]']
    events.sort(key=lambda event: event.start_ns())
    sums = list(accumulate((event.nbytes() for event in events), initial=0))
    return sums[-1] / 2**20, max(sums) / 2**20


def random_boxes(
    batch: int, size: tuple[int, int], num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return boxes ``(B, G, 4)``, xyxy in pixels, and labels ``(B, G)``.

    The square roots of their areas are spread evenly on a log scale from 1/16 to 1/2 of the image.
    """
    shape = (batch, BOXES_PER_IMAGE)
    side = min(size) * 2 ** (3 * torch.rand(*shape, generator=generator) - 4)
    ratio = 2 ** (torch.rand(*shape, generator=generator) - 0.5)
    sides = torch.stack([side * ratio, side / ratio], -1)
    extent = torch.tensor([size[1], size[0]])
    corner = torch.rand(*shape, 2, generator=generator) * (extent - sides)
    labels = torch.randint(0, num_classes, shape, generator=generator)
    return torch.cat([corner, corner + sides], -1), labels


class _Ours:
    """Preprocessing, network, loss, decay, clips and optimiser as the config has them."""

    def __init__(
        self,
        trained: TrainedModel,
        size: tuple[int, int],
        boxes: Tensor,
        labels: Tensor,
        variant: Variant,
    ) -> None:
        from mmdet.structures import DetDataSample
        from mmengine.optim import build_optim_wrapper
        from mmengine.structures import InstanceData

        self.network: nn.Module = trained.model.train()
        if variant.channels_last:
            trained.model.channels_last = True
        self._wrapper = build_optim_wrapper(self.network, trained.config.optim_wrapper)
        self._samples = []
        for own_boxes, own_labels in zip(boxes, labels, strict=True):
            shape = {'batch_input_shape': size, 'img_shape': size, 'pad_shape': size}
            sample = DetDataSample(metainfo=shape)
            sample.gt_instances = InstanceData(bboxes=own_boxes, labels=own_labels)
            self._samples.append(sample)

    def losses(self, pixels: Tensor) -> Losses:
        data = {'inputs': list(pixels), 'data_samples': self._samples}
        data = self.network.data_preprocessor(data, self.network.training)  # type: ignore[operator]
        losses = self.network(data['inputs'], data['data_samples'], mode='loss')
        return {'class': losses['loss_cls'], 'box': losses['loss_bbox']}

    def update(self, loss: Tensor) -> None:
        self._wrapper.update_params(loss)


class _Rival:
    """effdet's network, targets and loss, with the clip and optimiser of its train.py."""

    def __init__(
        self,
        trained: TrainedModel,
        size: tuple[int, int],
        boxes: Tensor,
        labels: Tensor,
        variant: Variant,
    ) -> None:
        from effdet_plugin.benchmark.effdet_rival import load_rival

        network = load_rival(trained, size)
        from effdet import DetBenchTrain

        self.bench = DetBenchTrain(network).to(boxes.device).train()
        self.network: nn.Module = network.train()
        self._channels_last = variant.channels_last
        self._box_weight = self.bench.config.box_loss_weight
        normal = trained.model.data_preprocessor
        self._mean, self._std = normal.mean.view(1, 3, 1, 1), normal.std.view(1, 3, 1, 1)
        # Its boxes are (y, x, y, x), its labels begin at 1.
        self._target = {'bbox': boxes[..., [1, 0, 3, 2]], 'cls': (labels + 1).float()}
        self._optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def losses(self, pixels: Tensor) -> Losses:
        images = pixels.float().sub_(self._mean).div_(self._std)
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        found = self.bench(images, self._target)
        return {'class': found['class_loss'], 'box': found['box_loss'] * self._box_weight}

    def update(self, loss: Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad()


def size_of(trained: TrainedModel) -> tuple[int, int]:
    """Return (height, width) of the config's network input."""
    from effdet_plugin.config import find_sizes, parse_size

    return parse_size(next(find_sizes(trained.config.test_dataloader))[1])
