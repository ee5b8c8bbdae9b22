from pathlib import Path

import pytest
import torch

from effdet_plugin.convert.coco_ids import (
    NAMES,
    NEVER_FIRES_LOGIT,
    SLOT_NAMES,
    SLOTS,
    UNUSED_IDS,
    choose_classes,
    select_classes,
)
from effdet_plugin.errors import CheckpointError


def test_slots__known_ids() -> None:
    assert len(SLOTS) == len(NAMES) == 80
    by_id = {slot + 1: name for slot, name in zip(SLOTS, NAMES, strict=True)}
    assert {1: 'person', 13: 'stop sign', 27: 'backpack', 90: 'toothbrush'}.items() <= by_id.items()
    assert not by_id.keys() & set(UNUSED_IDS)
    assert SLOT_NAMES[11] == 'unused_12'
    assert SLOT_NAMES[12] == 'stop sign'


def _predict(num_anchors: int, num_classes: int) -> dict[str, torch.Tensor]:
    """Weight and bias whose values are anchor * 1000 + class."""
    value = torch.arange(num_anchors)[:, None] * 1000.0 + torch.arange(num_classes)
    bias = value.flatten()
    return {
        'bbox_head.cls_tower.predict.depthwise.weight': torch.ones(4, 1, 3, 3),
        'bbox_head.cls_tower.predict.pointwise.weight': bias[:, None, None, None].repeat(
            1, 4, 1, 1
        ),
        'bbox_head.cls_tower.predict.pointwise.bias': bias,
        'bbox_head.box_tower.predict.pointwise.bias': torch.ones(num_anchors * 4),
    }


def test_select__slots_of_every_anchor() -> None:
    state = _predict(9, 90)
    result = select_classes(state, choose_classes(80, 90).slots, 9)
    expected = torch.tensor([a * 1000.0 + slot for a in range(9) for slot in SLOTS])
    assert torch.equal(result['bbox_head.cls_tower.predict.pointwise.bias'], expected)
    weight = result['bbox_head.cls_tower.predict.pointwise.weight']
    assert weight.shape == (720, 4, 1, 1)
    assert torch.equal(weight[:, 2, 0, 0], expected)
    for name in ('cls_tower.predict.depthwise.weight', 'box_tower.predict.pointwise.bias'):
        assert result[f'bbox_head.{name}'] is state[f'bbox_head.{name}']


def test_select__80_to_90_and_back() -> None:
    state = _predict(3, 80)
    wide = select_classes(state, choose_classes(90, 80).slots, 3)
    bias = wide['bbox_head.cls_tower.predict.pointwise.bias'].reshape(3, 90)
    assert bias[:, 11].eq(NEVER_FIRES_LOGIT).all()
    assert bias[:, 12].tolist() == [11.0, 1011.0, 2011.0]
    again = select_classes(wide, choose_classes(80, 90).slots, 3)
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_choose__names_file(tmp_path: Path) -> None:
    file = tmp_path / 'names.txt'
    file.write_text('cat\n\ndog \nbird\n')
    assert choose_classes(file, 3).names == ('cat', 'dog', 'bird')
    # The reference asks for one slot more than there are classes.
    assert choose_classes(str(file), 4).slots == (0, 1, 2)
    with pytest.raises(CheckpointError, match='3 names for 20 classes'):
        choose_classes(file, 20)


def test_choose__other_counts() -> None:
    choice = choose_classes(80, 21)
    assert choice.names[:2] == ('class_0', 'class_1')
    assert len(choice.slots) == 21
    assert 'not COCO' in choice.note
    with pytest.raises(CheckpointError, match='21 classes, not 90'):
        choose_classes(90, 21)


def test_choose__names_that_the_checkpoint_has() -> None:
    assert choose_classes(80, 2, known=('hat', 'shoe')).names == ('hat', 'shoe')


@pytest.mark.parametrize('content', [b'', b'a\na\n', b'\xff\xfe\x00'])
def test_choose__unusable_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / 'names.txt'
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'names\.txt'):
        choose_classes(file, 2)
    with pytest.raises(CheckpointError, match='not 80, 90 or a readable file'):
        choose_classes(tmp_path / 'absent.txt', 2)
