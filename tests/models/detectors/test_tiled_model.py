"""Tiles through a planted detector that knows what is in them."""

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from effdet_plugin.datasets import TileViews
from effdet_plugin.errors import ConfigError
from effdet_plugin.models.detectors import TiledDetector

IMAGE = (200, 300)
# (x1, y1, x2, y2) of the objects; the grey level is 10 * (number + 1).
OBJECTS = [(10, 10, 30, 30), (140, 90, 164, 112), (60, 150, 84, 170), (145, 20, 265, 80)]


def pack(results: dict[str, Any]) -> dict[str, Any]:
    sample = DetDataSample(metainfo={'ori_shape': results['ori_shape'], 'img_id': 7})
    return {'inputs': torch.from_numpy(results['img'][..., 0].copy()), 'data_samples': sample}


class Finder(BaseModel):
    """Finds each grey level's box, cut as it is in the tile; parts have a lower score."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        self.batches.append(len(data['inputs']))
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            rows = []
            for number in range(len(OBJECTS)):
                y, x = (image == 10 * (number + 1)).nonzero(as_tuple=True)
                if len(y):
                    box = [x.min(), y.min(), x.max() + 1, y.max() + 1]
                    x1, y1, x2, y2 = OBJECTS[number]
                    share = len(y) / ((x2 - x1) * (y2 - y1))
                    rows.append(([float(v) for v in box], 0.5 + 0.4 * share, 0))
            boxes, scores, labels = zip(*rows, strict=True) if rows else (torch.zeros(0, 4), (), ())
            sample.pred_instances = InstanceData(
                bboxes=torch.as_tensor(boxes).reshape(-1, 4),
                scores=torch.tensor(scores),
                labels=torch.tensor(labels, dtype=torch.int64),
            )
        return list(data['data_samples'])

    def forward(self) -> None:
        raise AssertionError


def image() -> np.ndarray:
    pixels = np.zeros((*IMAGE, 3), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(OBJECTS):
        pixels[y1:y2, x1:x2] = 10 * (number + 1)
    return pixels


def detect(views: TileViews, pixels: np.ndarray | None = None, **options: Any) -> DetDataSample:
    made = views({'img': image() if pixels is None else pixels, 'img_id': 7})
    [sample] = TiledDetector(Finder(), **options).test_step(pseudo_collate([made]))
    return sample


def boxes_of(sample: DetDataSample) -> list[tuple[float, ...]]:
    return sorted(tuple(box) for box in sample.pred_instances.bboxes.tolist())


@pytest.mark.parametrize('merge', ['nms', 'wbf'])
@pytest.mark.parametrize(
    'tiles', [dict(grid=(2, 2)), dict(grid=(1, 3)), dict(tile_size=(90, 100), overlap=0.3)]
)
def test_every_object_once(merge: str, tiles: dict[str, Any]) -> None:
    """Also those that a border cuts, and the one that is larger than the overlap."""
    sample = detect(TileViews([pack], **tiles), merge=merge)
    np.testing.assert_allclose(boxes_of(sample), sorted(OBJECTS), atol=1e-3)
    assert sample.ori_shape == IMAGE
    assert sample.img_id == 7
    torch.testing.assert_close(sample.pred_instances.scores, torch.full((4,), 0.9))


def test_without_the_whole_image_the_large_object_stays_in_parts() -> None:
    views = TileViews([pack], tile_size=(200, 100), whole=False)
    found = boxes_of(detect(views))
    assert set(OBJECTS[:3]) <= set(found)
    assert OBJECTS[3] not in found
    assert len(found) > 4


def test_one_tile_is_the_detector_itself() -> None:
    views = TileViews([pack], grid=(1, 1), whole=True)
    assert len(views({'img': image()})['tiles'].views) == 1
    assert boxes_of(detect(views)) == sorted(OBJECTS)


def test_images_of_other_sizes_share_batches() -> None:
    views = TileViews([pack], tile_size=(100, 100))
    made = [views({'img': pixels}) for pixels in (image(), image()[:90, :90], image())]
    finder = Finder()
    samples = TiledDetector(finder, batch_size=4).test_step(pseudo_collate(made))
    number = sum(len(one['tiles'].views) for one in made)
    assert sum(finder.batches) == number
    assert finder.batches == [4] * (number // 4) + ([number % 4] if number % 4 else [])
    assert boxes_of(samples[0]) == boxes_of(samples[2]) == sorted(OBJECTS)
    assert boxes_of(samples[1]) == [OBJECTS[0]]


def test_batch_size__the_loaders_by_default() -> None:
    views, finder = TileViews([pack], grid=(2, 1)), Finder()
    TiledDetector(finder).test_step(pseudo_collate([views({'img': image()})] * 2))
    assert finder.batches == [2, 2, 2]  # two tiles and the whole of each


def test_max_per_img_and_nothing_found() -> None:
    assert len(detect(TileViews([pack], grid=(2, 2)), max_per_img=2).pred_instances) == 2
    black = np.zeros((*IMAGE, 3), np.uint8)
    assert len(detect(TileViews([pack], grid=(2, 2)), black).pred_instances) == 0


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({}, 'one of both'),
        (dict(grid=(2, 2), tile_size=(64, 64)), 'one of both'),
        (dict(grid=(0, 2)), '2x0'),
        (dict(tile_size=(64, 8)), '8x64 px is too small'),
        (dict(grid=(2, 2), overlap=0.95), r'0\.95'),
    ],
)
def test_views__bad_values(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TileViews([pack], **arguments)


def test_views__too_many() -> None:
    views = TileViews([pack], tile_size=(32, 32), overlap=0.8)
    with pytest.raises(ConfigError, match='4000x4000 px would have'):
        views.windows(4000, 4000)
