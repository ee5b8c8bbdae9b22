"""COCO's classes: 90 ids, 80 in use. google/automl has an output per id, ours one per class."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.datasets import CocoDataset
from torch import Tensor

from effdet_plugin.errors import CheckpointError

NUM_SLOTS = 90
UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
# The 80 classes, in the order of their ids.
NAMES: tuple[str, ...] = CocoDataset.METAINFO['classes']
# Slots (id - 1) of the 80 classes.
SLOTS = tuple(i - 1 for i in range(1, NUM_SLOTS + 1) if i not in UNUSED_IDS)
SLOT_NAMES = tuple(
    NAMES[SLOTS.index(slot)] if slot in SLOTS else f'unused_{slot + 1}' for slot in range(NUM_SLOTS)
)
# Logit of a slot that nothing was trained for: a probability of 4e-44.
NEVER_FIRES_LOGIT = -100.0

_PREDICTION = re.compile(r'^bbox_head\.cls_tower\.predict\.(?:pointwise\.)?(weight|bias)$')


@dataclass(frozen=True)
class ClassChoice:
    """Names of the classes to keep and the slot that each comes from, -1: never fires."""

    names: tuple[str, ...]
    slots: tuple[int, ...]
    note: str = ''


def choose_classes(
    classes: int | str | Path | Sequence[str], num_slots: int, known: Sequence[str] = ()
) -> ClassChoice:
    """Choose which slots to keep, and their names.

    Args:
        classes: 80 (COCO's used ids), 90 (all its slots), a file with a name per line, or names.
        num_slots: outputs per anchor of the checkpoint.
        known: class names in the checkpoint's meta, if there are any.

    Raises:
        CheckpointError: The numbers do not agree, or the file is not usable.
    """
    if classes in (80, '80', 90, '90'):
        return _coco_choice(int(classes), num_slots, known)
    names = _read_names(classes) if isinstance(classes, (str, Path)) else tuple(classes)  # type: ignore[arg-type]
    if len(names) == num_slots:
        return ClassChoice(names, tuple(range(num_slots)))
    if len(names) == num_slots - 1:
        return ClassChoice(
            names, tuple(range(len(names))), 'the last slot, which is never used, left out'
        )
    if (len(names), num_slots) == (len(NAMES), NUM_SLOTS):
        return ClassChoice(names, SLOTS, 'the 10 unused COCO ids left out')
    raise CheckpointError(
        f'--classes gives {len(names)} names for {num_slots} classes: give one name per class'
    )


def select_classes(
    state: Mapping[str, Tensor], slots: Sequence[int], num_anchors: int
) -> dict[str, Tensor]:
    """Keep, drop and add classes in the predicting convolution (outputs ``a * C + c``).

    Args:
        state: our state dict.
        slots: source slot of each class to keep, -1 for a class that never fires.
        num_anchors: anchors per cell.
    """
    result = dict(state)
    for name, value in state.items():
        if match := _PREDICTION.match(name):
            unused = NEVER_FIRES_LOGIT if match.group(1) == 'bias' else 0.0
            by_anchor = value.unflatten(0, (num_anchors, -1))
            spare = torch.full_like(by_anchor[:, :1], unused)
            # The spare class stands last, where -1 finds it.
            wide = torch.cat([by_anchor, spare], dim=1)
            index = torch.tensor(slots, device=value.device) % wide.shape[1]
            result[name] = wide[:, index].flatten(0, 1).contiguous()
    return result


def _coco_choice(classes: int, num_slots: int, known: Sequence[str]) -> ClassChoice:
    every = tuple(range(num_slots))
    if len(known) == num_slots and tuple(known) not in (NAMES, SLOT_NAMES):
        return ClassChoice(tuple(known), every, 'names as the checkpoint has them')
    if (classes, num_slots) == (80, NUM_SLOTS):
        return ClassChoice(NAMES, SLOTS, 'the 10 unused COCO ids left out')
    if (classes, num_slots) == (90, 80):
        slots = tuple(SLOTS.index(s) if s in SLOTS else -1 for s in range(NUM_SLOTS))
        return ClassChoice(
            SLOT_NAMES, slots, '10 slots that never fire added for the unused COCO ids'
        )
    if num_slots in (80, 90):
        return ClassChoice(NAMES if num_slots == 80 else SLOT_NAMES, every)
    if classes == 90:
        raise CheckpointError(
            f'--classes 90: the checkpoint has {num_slots} classes, not 90 COCO slots'
        )
    names = tuple(f'class_{i}' for i in every)
    return ClassChoice(names, every, f'{num_slots} classes, not COCO: name them by --classes FILE')


def _read_names(path: str | Path) -> tuple[str, ...]:
    try:
        lines = Path(path).read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f'--classes {path}: not 80, 90 or a readable file with one name per line ({error})'
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) != len(names):
        raise CheckpointError(f'--classes {path}: it needs one name per line, each once')
    return names
