import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.detectors import EfficientDetTTAModel
from effdet_plugin.models.detectors.tta_model import merge_instances, unflip


def instances(boxes: list[list[float]], scores: list[float], label: int = 0) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.full((len(scores),), label),
    )


def test_unflip__mirrors_the_flipped_view_only() -> None:
    found = instances([[10, 5, 30, 25]], [0.5])
    meta = dict(flip=True, flip_direction='horizontal', ori_shape=(40, 100))
    assert unflip(found, meta).bboxes.tolist() == [[70, 5, 90, 25]]
    assert unflip(found, dict(flip=False, ori_shape=(40, 100))) is found
    with pytest.raises(ConfigError, match='horizontal'):
        unflip(found, meta | dict(flip_direction='vertical'))


def test_merge__nms_keeps_the_best_of_each_object() -> None:
    views = [
        instances([[0, 0, 10, 10]], [0.6]),
        instances([[0, 0, 10, 11], [20, 20, 30, 30]], [0.9, 0.3]),
    ]
    merged = merge_instances(views, 'nms')
    assert merged.bboxes.tolist() == [[0, 0, 10, 11], [20, 20, 30, 30]]
    assert merged.scores.tolist() == pytest.approx([0.9, 0.3])


def test_merge__a_threshold_of_zero_is_one() -> None:
    touching = [instances([[0, 0, 10, 10], [9, 9, 19, 19], [30, 30, 40, 40]], [0.9, 0.8, 0.7])]
    assert len(merge_instances(touching, 'nms')) == 3
    merged = merge_instances(touching, 'nms', iou_thr=0.0)
    assert merged.scores.tolist() == pytest.approx([0.9, 0.7])


def test_merge__wbf_averages_them() -> None:
    views = [instances([[0, 0, 10, 10]], [0.6]), instances([[0, 0, 10, 12]], [0.6])]
    merged = merge_instances(views, 'wbf')
    assert merged.bboxes.tolist() == [[0, 0, 10, 11]]
    assert merged.scores.tolist() == pytest.approx([0.6])
    assert merged.bboxes.dtype == torch.float32


@pytest.mark.parametrize('merge', ['nms', 'wbf'])
def test_merge__classes_apart_at_most_so_many_and_nothing(merge: str) -> None:
    views = [instances([[0, 0, 10, 10]], [0.6], 0), instances([[0, 0, 10, 10]], [0.5], 1)]
    assert merge_instances(views, merge).labels.tolist() == [0, 1]
    assert len(merge_instances(views, merge, max_per_img=1)) == 1
    assert len(merge_instances([instances([], []), instances([], [])], merge)) == 0


def test_merge__one_view_stays_as_it_is() -> None:
    view = instances([[0, 0, 10, 10], [2, 40, 9, 60]], [0.9, 0.2])
    for merge in ('nms', 'wbf'):
        merged = merge_instances([view], merge)
        torch.testing.assert_close(merged.bboxes, view.bboxes)
        torch.testing.assert_close(merged.scores, view.scores)


class Fixed(nn.Module):
    """Finds the same box in every view."""

    def test_step(self, data: dict[str, list[DetDataSample]]) -> list[DetDataSample]:
        for sample in data['data_samples']:
            sample.pred_instances = instances([[10, 5, 30, 25]], [0.5])
        return data['data_samples']


def sample_of(flip: bool) -> DetDataSample:
    return DetDataSample(metainfo=dict(ori_shape=(40, 100), flip=flip, flip_direction='horizontal'))


def test_model__merges_the_views_of_each_image() -> None:
    views = [[sample_of(flip) for _ in range(2)] for flip in (False, True)]
    images: list[Tensor] = [torch.zeros(2, 3, 4, 4)] * 2
    found = EfficientDetTTAModel(Fixed()).test_step(dict(inputs=images, data_samples=views))
    assert len(found) == 2
    assert found[0].pred_instances.bboxes.tolist() == [[10, 5, 30, 25], [70, 5, 90, 25]]


def test_model__refuses_an_unknown_merge() -> None:
    with pytest.raises(ConfigError, match=r"'soft'.*nms, wbf"):
        EfficientDetTTAModel(Fixed(), merge='soft')
