"""EfficientDet: a single-stage detector built from registered parts."""

import inspect
import shutil
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmengine.logging import print_log
from torch import Tensor

from effdet_plugin.config import size_pipelines
from effdet_plugin.errors import ConfigError
from effdet_plugin.models.freezing import freeze_parameters, frozen_norms

# Parts that are compiled, where they exist: other heads have no towers of these names.
COMPILED = ('backbone', 'neck', 'bbox_head.cls_tower', 'bbox_head.box_tower')


@MODELS.register_module()
class EfficientDet(SingleStageDetector):
    """mmdet's single-stage detector with options that concern the whole network.

    Args:
        backbone: config of the backbone.
        neck: config of the neck.
        bbox_head: config of the head.
        train_cfg: mmdet's; not needed.
        test_cfg: mmdet's; not needed.
        data_preprocessor: config of the data preprocessor.
        init_cfg: mmengine's.
        with_cp: recompute the activations of backbone, neck and head in backward, to save memory. A
            part without an argument ``with_cp`` is left as it is.
        recompute_norm_act: likewise of batch norms with their activations in backbone and head,
            which takes less time and saves less.
        channels_last: keep convolution weights and inputs in channels-last memory order.
        compile: apply ``torch.compile`` to backbone, neck and the head's towers; a dict gives its
            arguments. Needs a C++ compiler. Heads of other types are not compiled; the log lists
            the compiled parts.
        freeze: regular expression; parameters whose names contain a match are not trained. This is
            ``var_freeze_expr`` of google/automl efficientdet/hparams_config.py, for our names.
        freeze_norm_statistics: BN whose parameters are frozen normalises with its running
            statistics and does not update them. False: statistics are updated, as in google/automl.

    Raises:
        ConfigError: ``compile`` without a C++ compiler, or with ``recompute_norm_act``; ``with_cp``
            if no part has it, ``recompute_norm_act`` likewise; a ``freeze`` that matches nothing or
            everything.
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
        recompute_norm_act: bool = False,
        channels_last: bool = False,
        compile: bool | dict[str, Any] = False,
        freeze: str | None = None,
        freeze_norm_statistics: bool = True,
    ) -> None:
        # Before the parts are built: their constructors read these.
        if with_cp:
            backbone, neck, bbox_head = _with('with_cp', backbone, neck, bbox_head)
        if recompute_norm_act:
            if compile:
                raise ConfigError(
                    'model.recompute_norm_act: a compiled network recomputes by itself; leave it '
                    'out or set compile=False'
                )
            backbone, bbox_head = _with('recompute_norm_act', backbone, bbox_head)
        super().__init__(
            backbone, neck, bbox_head, train_cfg, test_cfg, data_preprocessor, init_cfg
        )
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self.freeze, self.freeze_norm_statistics = freeze, freeze_norm_statistics
        if freeze is not None:
            freeze_parameters(self, freeze)
        # Last, so that the other options apply to what is compiled.
        if compile:
            self._compile(compile if isinstance(compile, dict) else {})

    @property
    def cfg(self) -> Any:
        """The config that mmdet's ``init_detector`` or ``DetInferencer`` built this model from.

        Both set it, and then build the test pipeline from it without its dataset. So that the
        pipeline knows the dataset's ``image_size``, it is written into the transforms here.
        """
        return self._cfg

    @cfg.setter
    def cfg(self, cfg: Any) -> None:
        self._cfg = cfg
        if cfg.get('test_dataloader'):
            size_pipelines(cfg.test_dataloader.dataset)

    def train(self, mode: bool = True) -> 'EfficientDet':
        """Training mode, except for frozen BN."""
        super().train(mode)
        if mode and self.freeze is not None and self.freeze_norm_statistics:
            for norm in frozen_norms(self, self.freeze):
                norm.eval()
        return self

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Normalised images ``(B, 3, H, W)`` -> pyramid maps, finest first."""
        # All maps get the memory order of the images. Without channels_last the images must not
        # have that order by accident: on a CPU, BN then sums less exactly, which costs the
        # backbone's gradients two digits.
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        return super().extract_feat(batch_inputs.contiguous(memory_format=order))

    def _compile(self, arguments: dict[str, Any]) -> None:
        if not any(shutil.which(name) for name in ('c++', 'g++', 'clang++')):
            raise ConfigError(
                'model.compile: torch.compile needs a C++ compiler (g++), none is on PATH'
            )
        # Not the whole detector: post-processing and losses have Python loops.
        modules = dict(self.named_modules())
        names = [name for name in COMPILED if name in modules]
        print_log(f'Compiled: {", ".join(names)}', logger='current')
        for name in names:
            modules[name].compile(**arguments)


def _with(switch: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Configs of parts, with a switch on in those that have this argument."""
    able = [_takes(part.get('type'), switch) for part in parts]
    if not any(able):
        names = ', '.join(str(part['type']) for part in parts)
        raise ConfigError(
            f'model.{switch}: none of {names} can recompute activations; leave it out'
        )
    return [{**p, switch: True} if a else p for p, a in zip(parts, able, strict=True)]


def _takes(kind: Any, argument: str) -> bool:
    """Whether the constructor of a part, or of a base class that it calls, has an argument."""
    part = MODELS.get(kind) if isinstance(kind, str) else kind
    if not inspect.isclass(part):
        return True  # an unknown type: building it raises the error
    for owner in part.__mro__:
        if '__init__' in vars(owner):
            parameters = inspect.signature(vars(owner)['__init__']).parameters
            if argument in parameters:
                return True
            # Without **kwargs nothing is passed to a base class.
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                return False
    return False
