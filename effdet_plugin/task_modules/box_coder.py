"""EfficientDet's box coding with mmdet's box coder interface."""

from collections.abc import Sequence

from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import BaseBoxes, get_box_tensor
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import clip_boxes, decode_deltas, encode_deltas


@TASK_UTILS.register_module()
class EfficientDetBoxCoder(BaseBBoxCoder):
    """Deltas ``(tx, ty, tw, th)`` without scale factors; ``tw``, ``th`` are not clamped.

    mmdet's ``DeltaXYWHBBoxCoder`` with means 0 and stds 1 differs only in that it clamps them.
    """

    encode_size = 4

    def encode(
        self, bboxes: Tensor | BaseBoxes, gt_bboxes: Tensor | BaseBoxes, *other: object
    ) -> Tensor:
        """Anchors ``(..., 4)`` and boxes ``(..., 4)``, xyxy -> deltas ``(..., 4)``.

        Raises:
            ConfigError: a head that encodes relative to ``other`` things, too (YOLOv3's strides).
        """
        if other:
            raise _not_deltas()
        return encode_deltas(get_box_tensor(bboxes), get_box_tensor(gt_bboxes))

    def decode(
        self,
        bboxes: Tensor | BaseBoxes,
        pred_bboxes: Tensor,
        max_shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Anchors and deltas ``(..., 4)`` -> xyxy boxes, clipped to ``max_shape`` if given.

        ``max_shape`` is (height, width) in pixels of the network input.

        Raises:
            ConfigError: points in place of anchors.
        """
        # mmdet's heads pass HorizontalBoxes, ours pass tensors.
        anchors = get_box_tensor(bboxes)
        if anchors.shape[-1] != 4 or pred_bboxes.shape[-1] != 4:
            raise _not_deltas()
        boxes = decode_deltas(anchors, pred_bboxes)
        return boxes if max_shape is None else clip_boxes(boxes, (max_shape[0], max_shape[1]))


def _not_deltas() -> ConfigError:
    return ConfigError(
        'EfficientDetBoxCoder has four deltas for each anchor (x1, y1, x2, y2); this head has '
        'other values or priors: keep its own bbox_coder'
    )
