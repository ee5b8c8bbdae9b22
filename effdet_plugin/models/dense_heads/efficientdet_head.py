"""EfficientDet's head: two towers, targets of the whole batch, losses and predictions.

Source: google/automl efficientdet/tf2/efficientdet_keras.py for the network and
efficientdet/tf2/train_lib.py for the losses (the reference).
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.dense_heads.tower import Tower
from effdet_plugin.models.layers.activation_checkpoint import checkpoint_activations
from effdet_plugin.models.layers.conv import NORM_MOMENTUM
from effdet_plugin.models.layers.norm_act import recomputed_norms
from effdet_plugin.models.losses import loss_normalizer
from effdet_plugin.ops.boxes import gather_rows

# Foreground probability that the class bias starts from (focal loss paper, section 3.3): without it
# the loss of the many background anchors would dominate the first steps.
PRIOR_PROBABILITY = 0.01


@MODELS.register_module()
class EfficientDetHead(BaseDenseHead):
    """Separable-conv towers shared by all levels, with mmdet's dense head interface.

    Args:
        num_classes: number of classes, without background; labels are ``0 .. num_classes - 1``.
        in_channels: channels of the neck's maps.
        feat_channels: channels of the towers; ``in_channels`` if None.
        stacked_convs: convolutions of each tower before the one that predicts.
        num_levels: number of the neck's maps; each level has its own BN layers.
        separable: separable or plain 3x3 convolutions.
        act: name of the activation, such as ``'swish'`` or ``'relu6'``.
        survival_prob: see :class:`~effdet_plugin.models.dense_heads.tower.Tower`.
        norm_momentum: momentum of every BN, see :class:`~effdet_plugin.models.BiFPN`.
        recompute_norm_act: recompute batch norms and activations in backward, to save memory; see
            :mod:`effdet_plugin.models.layers.norm_act`.
        with_cp: recompute each whole tower in backward.
        anchor_generator: config; None: ``EfficientDetAnchorGenerator`` with its defaults.
        bbox_coder: config; None: ``EfficientDetBoxCoder``.
        assigner: config; the type needs ``assign_batch``. None: ``BatchMaxIoUAssigner``.
        loss_cls: config of a loss of logits and label indices; None: ``SigmoidFocalLoss``.
        loss_bbox: config of a loss of deltas; None: ``HuberLoss`` with weight 50. Its sum is
            divided by 4 times the normaliser.
        loss_iou: config of a loss of decoded boxes, or None (the reference's default).
        loss_normalizer: ``'local'`` (the reference's), ``'mean'``, ``'global'`` or ``'constant'``,
            see :func:`~effdet_plugin.models.losses.loss_normalizer`.
        normalizer_value: divisor of ``'constant'``.
        mask_zero_targets: leave delta coordinates that are exactly 0 out of the box loss, as the
            reference does.
        postprocessor: config of :class:`~effdet_plugin.models.DetectionPostProcessor`.
        train_cfg: not used; mmdet's detectors pass it to any head.
        test_cfg: not used, likewise.
        init_cfg: mmengine's; without it the reference's initial values.

    Attributes:
        counts_positives: Whether the next losses count their positives.
        positives: ``(num_levels,)`` matched anchors of each level, as last counted.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        feat_channels: int | None = None,
        stacked_convs: int = 3,
        num_levels: int = 5,
        separable: bool = True,
        act: str = 'swish',
        survival_prob: float | None = None,
        norm_momentum: float = NORM_MOMENTUM,
        recompute_norm_act: bool = False,
        with_cp: bool = False,
        anchor_generator: dict[str, Any] | None = None,
        bbox_coder: dict[str, Any] | None = None,
        assigner: dict[str, Any] | None = None,
        loss_cls: dict[str, Any] | None = None,
        loss_bbox: dict[str, Any] | None = None,
        loss_iou: dict[str, Any] | None = None,
        loss_normalizer: str = 'local',
        normalizer_value: float = 100.0,
        mask_zero_targets: bool = True,
        postprocessor: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.num_classes = self.cls_out_channels = num_classes
        self.use_sigmoid_cls = True
        self.in_channels = in_channels
        self.num_levels = num_levels
        self.prior_generator = TASK_UTILS.build(
            anchor_generator or dict(type='EfficientDetAnchorGenerator')
        )
        self.bbox_coder = TASK_UTILS.build(bbox_coder or dict(type='EfficientDetBoxCoder'))
        self.assigner = TASK_UTILS.build(assigner or dict(type='BatchMaxIoUAssigner'))
        self.loss_cls = MODELS.build(loss_cls or dict(type='SigmoidFocalLoss', use_sigmoid=True))
        self.loss_bbox = MODELS.build(loss_bbox or dict(type='HuberLoss', loss_weight=50.0))
        self.loss_iou = MODELS.build(loss_iou) if loss_iou else None
        self.loss_normalizer = loss_normalizer
        self.normalizer_value = normalizer_value
        self.mask_zero_targets = mask_zero_targets
        self.recompute_norm_act, self.with_cp = recompute_norm_act, with_cp
        self.counts_positives = False
        self.positives: Tensor | None = None
        self.postprocessor = MODELS.build(postprocessor or dict(type='DetectionPostProcessor'))
        tower = partial(
            Tower,
            in_channels,
            feat_channels or in_channels,
            num_convs=stacked_convs,
            num_levels=num_levels,
            separable=separable,
            act=act,
            survival_prob=survival_prob,
            norm_momentum=norm_momentum,
        )
        self.num_anchors = self.prior_generator.num_base_priors[0]
        self.cls_tower = tower(self.num_anchors * num_classes)
        self.box_tower = tower(self.num_anchors * 4)
        predict = self.cls_tower.predict
        # -log((1 - p) / p) is the logit of p.
        nn.init.constant_(
            (predict.pointwise if separable else predict).bias,  # type: ignore[arg-type, union-attr]
            -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY),
        )

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Class logits and deltas of all levels.

        Args:
            feats: maps ``(B, in_channels, h, w)``, finest first.

        Returns:
            Lists over levels: ``(B, A * C, h, w)`` logits, channel ``a * C + c``, and
            ``(B, A * 4, h, w)`` deltas, channel ``a * 4 + (tx, ty, tw, th)``.

        Raises:
            ConfigError: the number of maps is not ``num_levels``.
        """
        if len(feats) != self.num_levels:
            raise ConfigError(
                f'bbox_head.num_levels={self.num_levels}, but the neck gives {len(feats)} maps: '
                'set it, and as many strides of the anchor generator'
            )
        with recomputed_norms(self.recompute_norm_act and self.training):
            if self.with_cp and self.training:
                save = checkpoint_activations
                return save(self.cls_tower, feats), save(self.box_tower, feats)
            return self.cls_tower(feats), self.box_tower(feats)

    def flatten(self, outputs: Sequence[Tensor], width: int) -> Tensor:
        """Outputs ``(B, A * width, h, w)`` -> ``(B, N, width)`` by level, row, column, anchor."""
        return torch.cat(self.rows(outputs, width), dim=1)

    def rows(self, outputs: Sequence[Tensor], width: int) -> list[Tensor]:
        """Outputs ``(B, A * width, h, w)`` of each level -> ``(B, h * w * A, width)``."""
        return [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width) for x in outputs]

    def anchors(
        self, outputs: Sequence[Tensor], image_size: tuple[int, int] | None
    ) -> list[Tensor]:
        """Anchors ``(n_l, 4)`` xyxy float32 of each level of ``outputs``, on their device."""
        sizes = [(x.shape[-2], x.shape[-1]) for x in outputs]
        if image_size is not None:
            self._check_stride(image_size[0] / sizes[0][0])
        # mmdet's own generators do not take the image size.
        is_ours = hasattr(self.prior_generator, 'stride_mode')
        keywords = {'image_size': image_size} if is_ours else {}
        return self.prior_generator.grid_priors(sizes, device=outputs[0].device, **keywords)

    def _check_stride(self, found: float) -> None:
        """Refuse maps of another level than the anchors, such as timm's others of index 2."""
        expected = self.prior_generator.strides[0][1]
        # Rounded map sizes are within this; another level is a factor of two.
        if not 0.67 < found / expected < 1.5:
            raise ConfigError(
                f'bbox_head.anchor_generator.strides starts at {expected}, but the finest map has '
                f'stride {found:g}: choose backbone.out_indices of the strides, or set the strides'
            )

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict[str, Any]],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of a batch, in float32 whatever the dtype of the outputs.

        Args:
            cls_scores: see :meth:`forward`.
            bbox_preds: see :meth:`forward`.
            batch_gt_instances: ``bboxes`` ``(G, 4)`` xyxy in pixels of the network input and
                ``labels`` ``(G,)`` of each image. Boxes without area are left out: the matcher
                would give them anchor 0.
            batch_img_metas: ``batch_input_shape`` gives the image size of fractional anchor
                strides.
            batch_gt_instances_ignore: not used: crowd boxes are not targets, and no anchor is
                ignored.

        Returns:
            Scalars ``loss_cls``, ``loss_bbox`` and, if configured, ``loss_iou``.
        """
        levels = self.anchors(cls_scores, batch_img_metas[0].get('batch_input_shape'))
        anchors = torch.cat(levels)
        logits = self.flatten(cls_scores, self.num_classes)
        deltas = self.flatten(bbox_preds, 4).float()
        boxes, gt_labels = pack_targets(batch_gt_instances)
        valid = (gt_labels >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
        matched = self.assigner.assign_batch(anchors, boxes, valid)  # (B, N)
        positive = matched >= 0
        if self.counts_positives:
            of_levels = positive.sum(0).split([len(level) for level in levels])
            self.positives = torch.stack([level.sum() for level in of_levels])
        normalizer = loss_normalizer(
            self.loss_normalizer, positive.sum().float(), self.normalizer_value
        )
        # Background rows index box 0, and are masked afterwards: shapes stay fixed without a sync.
        index = matched.clamp(min=0)
        labels = torch.where(positive, gather_rows(gt_labels, index), self.num_classes)
        loss_cls = self.loss_cls(
            logits.reshape(-1, self.num_classes), labels.reshape(-1), avg_factor=normalizer
        )
        target_boxes = gather_rows(boxes, index)  # (B, N, 4)
        box_losses = self._box_losses(
            deltas, anchors.expand_as(deltas), target_boxes, positive, 4 * normalizer
        )
        return dict(loss_cls=loss_cls, **box_losses)

    def _box_losses(
        self, deltas: Tensor, anchors: Tensor, boxes: Tensor, positive: Tensor, divisor: Tensor
    ) -> dict[str, Tensor]:
        """Delta loss and IoU loss of ``(B, N, 4)``; both sums divided by ``divisor``."""
        mask = positive.unsqueeze(-1)
        # Background rows encode their anchor with itself, which gives 0: a padding box might not
        # give a finite value.
        targets = self.bbox_coder.encode(anchors, torch.where(mask, boxes, anchors))
        weight = mask & (targets != 0) if self.mask_zero_targets else mask.expand_as(targets)
        losses = {}
        if self.loss_bbox.loss_weight:  # with weight 0 only the IoU loss is used
            losses['loss_bbox'] = self.loss_bbox(
                deltas.reshape(-1, 4),
                targets.reshape(-1, 4),
                weight.reshape(-1, 4).float(),
                divisor,
            )
        if self.loss_iou is not None:
            predicted = self.bbox_coder.decode(anchors, torch.where(mask, deltas, 0.0))
            losses['loss_iou'] = self.loss_iou(
                predicted.reshape(-1, 4),
                self.bbox_coder.decode(anchors, targets).reshape(-1, 4),
                positive.reshape(-1).float(),
                avg_factor=divisor,
            )
        return losses

    def predict_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        score_factors: Sequence[Tensor] | None = None,
        batch_img_metas: Sequence[dict[str, Any]] | None = None,
        cfg: dict[str, Any] | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Detections of each image.

        Args:
            cls_scores: see :meth:`forward`.
            bbox_preds: see :meth:`forward`.
            score_factors: not used.
            batch_img_metas: metainfo of each image, with ``batch_input_shape`` (height, width) and,
                to rescale, ``scale_factor`` (horizontal, vertical).
            cfg: not used; the ``postprocessor`` holds all settings.
            rescale: give boxes in pixels of the original image, not of the network input.
            with_nms: apply NMS; False returns all candidates.

        Returns:
            ``bboxes`` ``(n, 4)`` xyxy, ``scores`` ``(n,)``, ``labels`` ``(n,)``, by descending
            score.

        Raises:
            ConfigError: boxes are to be clipped, but the metainfo has no image size.
        """
        assert batch_img_metas is not None
        if len(batch_img_metas) > 1 and cls_scores[0].device.type == 'cpu':
            # One image after the other: the logits of a batch are more than the caches hold.
            return [
                self.predict_by_feat(
                    [x[i : i + 1] for x in cls_scores],
                    [x[i : i + 1] for x in bbox_preds],
                    batch_img_metas=[meta],
                    rescale=rescale,
                    with_nms=with_nms,
                )[0]
                for i, meta in enumerate(batch_img_metas)
            ]
        image_size = batch_img_metas[0].get('batch_input_shape')
        levels = self.anchors(cls_scores, image_size)
        logits, deltas = self.rows(cls_scores, self.num_classes), self.flatten(bbox_preds, 4)
        raw = (logits, deltas, torch.cat(levels))
        options = dict(level_sizes=[len(x) for x in levels], decode=self.bbox_coder.decode)
        if not with_nms:
            found = zip(*self.postprocessor.candidates(*raw, **options), strict=True)
            return [
                _instances(image, meta, rescale)
                for image, meta in zip(found, batch_img_metas, strict=True)
            ]
        if image_size is None and self.postprocessor.clip != 'none':
            raise ConfigError(
                f'postprocessor.clip={self.postprocessor.clip!r} needs the size of the network '
                "input: give batch_img_metas batch_input_shape, or set clip='none'"
            )
        *padded, num = self.postprocessor(*raw, image_size or (0, 0), **options)
        # The one device sync of a batch: from here on each image has its own number of rows.
        return [
            _instances((x[i, :n] for x in padded), meta, rescale)
            for i, (n, meta) in enumerate(zip(num.tolist(), batch_img_metas, strict=True))
        ]


def pack_targets(instances: Sequence[InstanceData]) -> tuple[Tensor, Tensor]:
    """Pad the ragged ground truth of a batch: boxes ``(B, G, 4)`` and labels ``(B, G)`` with -1."""
    boxes = [get_box_tensor(item.bboxes).float() for item in instances]
    labels = [item.labels for item in instances]
    return (
        nn.utils.rnn.pad_sequence(boxes, batch_first=True),
        nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-1),
    )


def _instances(found: Iterable[Tensor], meta: dict[str, Any], rescale: bool) -> InstanceData:
    boxes, scores, labels = found
    if rescale:  # (horizontal, vertical) -> one factor for each of x1, y1, x2, y2
        boxes = boxes / boxes.new_tensor(meta['scale_factor']).repeat(2)
    return InstanceData(bboxes=boxes, scores=scores, labels=labels)
