"""EfficientDet: a single-stage detector put together from registered parts."""

import shutil
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.freezing import freeze_parameters, frozen_norms


@MODELS.register_module()
class EfficientDet(SingleStageDetector):
    """mmdet's single-stage detector with switches that concern the whole network.

    Args:
        backbone: config of the backbone.
        neck: config of the neck.
        bbox_head: config of the head.
        train_cfg: mmdet's; not needed.
        test_cfg: mmdet's; not needed.
        data_preprocessor: config.
        init_cfg: mmengine's.
        with_cp: recompute activations of backbone and neck in backward, to save memory.
        channels_last: keep convolution weights and inputs in channels-last memory order.
        compile: ``torch.compile`` backbone, neck and head; a dict gives its arguments. Needs a C++
            compiler.
        freeze: regular expression; parameters in whose names it is found are not trained. The
            reference's ``var_freeze_expr``, there over TensorFlow's names.
        freeze_norm_statistics: BN whose parameters are frozen normalises with its running
            statistics, and leaves them. False: it goes on as in training, as in the reference.

    Raises:
        ConfigError: ``compile`` without a C++ compiler; a ``freeze`` that matches nothing.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        neck: dict[str, Any],
        bbox_head: dict[str, Any],
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        data_preprocessor: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        with_cp: bool = False,
        channels_last: bool = False,
        compile: bool | dict[str, Any] = False,
        freeze: str | None = None,
        freeze_norm_statistics: bool = True,
    ) -> None:
        if with_cp:
            backbone, neck = {**backbone, 'with_cp': True}, {**neck, 'with_cp': True}
        super().__init__(
            backbone, neck, bbox_head, train_cfg, test_cfg, data_preprocessor, init_cfg
        )
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.freeze, self.freeze_norm_statistics = freeze, freeze_norm_statistics
        if freeze is not None:
            freeze_parameters(self, freeze)
        if compile:
            self._compile(compile if isinstance(compile, dict) else {})

    def train(self, mode: bool = True) -> 'EfficientDet':
        """Training mode, but for frozen BN."""
        super().train(mode)
        if mode and self.freeze is not None and self.freeze_norm_statistics:
            for norm in frozen_norms(self, self.freeze):
                norm.eval()
        return self

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Normalised images ``(B, 3, H, W)`` -> pyramid maps, finest first."""
        # The images' order becomes that of all maps. Without channels_last it must not slip in: BN
        # on a CPU sums plainly there, which costs gradients of the backbone two digits.
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return super().extract_feat(batch_inputs.contiguous(memory_format=order))

    def _compile(self, arguments: dict[str, Any]) -> None:
        if not any(shutil.which(name) for name in ('c++', 'g++', 'clang++')):
            raise ConfigError(
                'model.compile: torch.compile needs a C++ compiler (g++), none is on PATH'
            )
        for part in (self.backbone, self.neck, self.bbox_head.cls_tower, self.bbox_head.box_tower):
            part.compile(**arguments)
