"""A runtime without a file: a network of PyTorch behind the interface of `load_runtime`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

import effdet_plugin
from effdet_plugin.config import find_sizes
from effdet_plugin.config.embedded import embed
from effdet_plugin.datasets.transforms import LetterBox
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.runtime import check_images
from effdet_plugin.trained_model import TrainedModel, load_trained


def metadata_of(trained: TrainedModel, **changes: Any) -> Metadata:
    """What a file of a detector of ours says about itself."""
    cfg = trained.config
    size = next(size for _, size in find_sizes(cfg.test_dataloader))
    known: dict[str, Any] = dict(
        format='onnx',
        classes=trained.classes,
        image_size=tuple(size),
        mean=tuple(cfg.model.data_preprocessor.mean),
        std=tuple(cfg.model.data_preprocessor.std),
        pad_value=0.0,
        resize_mode='letterbox',
        resize_dtype='float32',
        end='raw',
        nms={k: v for k, v in cfg.model.bbox_head.postprocessor.items() if k != 'type'},
        input='float',
        precision='fp32',
        version=effdet_plugin.__version__,
        checkpoint_sha256='',
        config=embed(cfg),
    )
    return Metadata(**{**known, **changes})


class FakeRuntime:
    """Runs a detector as an exported file would.

    Args:
        trained: The detector.
        changes: Fields of the metadata.
    """

    def __init__(self, trained: TrainedModel, **changes: Any) -> None:
        self.metadata = metadata_of(trained, **changes)
        self.model: Any = trained.model

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        check_images(images, self.metadata)
        batch = self._resized(images) if self.metadata.input == 'uint8' else torch.tensor(images)
        size = (batch.shape[2], batch.shape[3])
        head = self.model.bbox_head
        classes, deltas = head(self.model.extract_feat(batch))
        levels = head.anchors(classes, size)
        raw = (head.flatten(classes, head.num_classes), head.flatten(deltas, 4))
        if self.metadata.end == 'raw':
            outputs: tuple[Tensor, ...] = raw
        elif self.metadata.end == 'decoded':
            outputs = (head.bbox_coder.decode(torch.cat(levels), raw[1]), raw[0].sigmoid())
        else:
            outputs = head.postprocessor(
                *raw, torch.cat(levels), size, [len(x) for x in levels], head.bbox_coder.decode
            )
        names = self.metadata.outputs
        return {name: x.numpy() for name, x in zip(names, outputs, strict=True)}

    def _resized(self, images: np.ndarray) -> Tensor:
        """Letter-box raw images as the pipeline does."""
        assert self.metadata.image_size is not None
        box = LetterBox(self.metadata.image_size, resize_dtype=self.metadata.resize_dtype)
        box.resize_mode = self.metadata.resize_mode
        found = [box.transform({'img': image}) for image in images]
        batch = torch.stack([torch.from_numpy(f['img']).permute(2, 0, 1) for f in found]).float()
        valid = [f['img_shape'] for f in found]
        normalised: Tensor = self.model.data_preprocessor._normalize(batch, valid)
        return normalised


def small_config(size: tuple[int, int] = (128, 192)) -> Config:
    """Lite0 of two classes."""
    from effdet_plugin.config import load

    options = {
        'model.bbox_head.num_classes': 2,
        'model.bbox_head.postprocessor.nms_pre': 200,
        'model.backbone.pretrained': False,
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'test_dataloader.dataset.dataset.metainfo': {'classes': ('circle', 'square')},
    }
    return load('lite0_coco', image_size=size, options=options)


def spread_network(folder: Path) -> TrainedModel:
    """A network whose scores and boxes differ: without a training its features are about 1e-6."""
    cfg = small_config()
    model: Any = load_trained(cfg, 'none', 'cpu').model
    for tower, std in ((model.bbox_head.cls_tower, 2e5), (model.bbox_head.box_tower, 2e4)):
        torch.nn.init.normal_(tower.predict.pointwise.weight, std=std)
        torch.nn.init.zeros_(tower.predict.pointwise.bias)
    path = folder / 'two.pth'
    meta = {'dataset_meta': {'classes': ('circle', 'square')}, 'config': embed(cfg)}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    return load_trained(None, path, 'cpu')
