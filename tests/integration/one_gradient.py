"""Run in each process of a group: the gradient of one batch, split over those that there are."""

from pathlib import Path

import torch
import torch.distributed as dist
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[2]
SIDE = 64


def build(normalizer: str) -> nn.Module:
    """A D0 of 3 classes with equal weights everywhere; BN frozen, as its batches differ."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'efficientdet' / 'd0_coco.py')
    cfg.model.bbox_head.update(num_classes=3, loss_normalizer=normalizer)
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


class Loss(nn.Module):
    """The loss as a module, so that DDP can wrap it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, instances: list[InstanceData]) -> Tensor:
        """Sum of all losses."""
        outputs = self.model.bbox_head(self.model.extract_feat(images))
        metas = [{'batch_input_shape': (SIDE, SIDE)}] * len(images)
        return sum(self.model.bbox_head.loss_by_feat(*outputs, instances, metas).values())


def main(normalizer: str, out: str) -> None:
    """Save the gradients of rank 0."""
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    rank, world = dist.get_rank(), dist.get_world_size()
    loss = Loss(build(normalizer))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, SIDE, SIDE, generator=generator)
    # Unequal numbers of positives: with equal ones every normaliser would do.
    boxes = [
        torch.tensor([[4.0, 4, 40, 40], [20, 20, 60, 52], [0, 30, 30, 64]]),
        torch.tensor([[8.0, 8, 20, 20]]),
    ]
    instances = [InstanceData(bboxes=b, labels=torch.arange(len(b))) for b in boxes]
    mine = slice(rank, rank + 1) if world == 2 else slice(None)
    wrapped = nn.parallel.DistributedDataParallel(loss) if world == 2 else loss
    wrapped(images[mine], instances[mine]).backward()
    if rank == 0:
        torch.save({k: p.grad for k, p in loss.model.named_parameters()}, out)
