"""The order of the tests in several processes: each process begins with its longest files.

pytest-xdist's worksteal gives each process an equal number of tests, one stretch of the list, and
takes tests from the end of another's stretch when one is done. So long tests come first and short
ones last.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import pytest

# Seconds of files that take more than a few on one core, waiting included (pytest --durations=0).
SECONDS: Mapping[str, float] = {
    'tests/integration/test_faults.py': 280,
    'tests/integration/test_learning.py': 90,
    'tests/integration/test_interruption.py': 60,
    'tests/convert/test_api.py': 59,
    'tests/parity/test_effdet.py': 59,
    'tests/parity/test_networks.py': 44,
    'tests/convert/test_released.py': 42,
    'tests/mix/test_mix.py': 34,
    'tests/parity/test_effdet_detections.py': 33,
    'tests/inference/test_shards.py': 28,
    'tests/training/test_dry_run.py': 24,
    'tests/config/test_all_configs.py': 20,
    'tests/training/test_start_weights.py': 22,
    'tests/training/test_evaluate.py': 20,
    'tests/tools/test_start_up.py': 19,
    'tests/ablation/test_trials.py': 18,
    'tests/ops/test_matching.py': 17,
    'tests/training/test_train.py': 16,
    'tests/mix/test_other_detectors.py': 16,
    'tests/fuzz/test_fuzz.py': 15,
    'tests/benchmark/test_modes.py': 15,
    'tests/tools/test_quickstart.py': 15,
    'tests/docs/test_inference.py': 14,
    'tests/docs/test_own_fusion.py': 12,
    'tests/docs/test_tutorial.py': 12,
    'tests/training/test_export_trained.py': 12,
    'tests/integration/test_voc2012.py': 12,
    'tests/integration/test_two_processes.py': 12,
    'tests/inference/test_runtime_model.py': 12,
    'tests/engine/test_resume.py': 12,
    'tests/convert/test_networks.py': 11,
    'tests/models/test_fold.py': 10,
    'tests/test_compat.py': 10,
    'tests/cli/test_main.py': 10,
    'tests/tools/test_infer.py': 9,
    'tests/test_walks.py': 8,
    'tests/engine/test_accumulation.py': 8,
    'tests/docs/test_pages.py': 8,
    'tests/integration/test_mmdet_inference.py': 8,
    'tests/ablation/test_configs.py': 7,
    'tests/data_check/test_bccd.py': 7,
    'tests/training/test_evaluate_models.py': 7,
    'tests/convert/test_tf_checkpoint.py': 6,
    'tests/engine/test_runner.py': 5,
    'tests/convert/test_key_map.py': 5,
    'tests/engine/test_hostile_checkpoints.py': 5,
    'tests/ablation/test_tables.py': 5,
    'tests/training/test_prepare.py': 5,
    'tests/convert/test_mutants.py': 5,
    'tests/training/test_evaluate_tta.py': 5,
    'tests/training/test_api.py': 5,
    'tests/config/test_check.py': 5,
    'tests/parity/test_train_step.py': 5,
    'tests/ops/test_nms.py': 5,
    'tests/models/backbones/test_timm_backbone.py': 4,
    'tests/training/test_time_budget.py': 4,
    'tests/datasets/test_dataset.py': 4,
    'tests/own_data/test_apply.py': 4,
    'tests/tools/test_ablation_and_fuse.py': 4,
    'tests/evaluation/test_coco_twelve.py': 4,
}
A_TEST = 0.1  # of other files
# They share the trainings of tests/integration/conftest.py.
TOGETHER = {
    f'tests/integration/{name}.py': 'tests/integration/test_faults.py'
    for name in ('test_faults_of_places', 'test_faults_of_settings', 'test_hostile_files')
}


def by_file(items: Sequence[pytest.Item]) -> dict[str, list[pytest.Item]]:
    """The tests of each file in their order; those of `TOGETHER` as if they were one file."""
    files: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = item.nodeid.split('::')[0]
        files.setdefault(TOGETHER.get(name, name), []).append(item)
    return files


def stretches(counts: Mapping[str, int], number: int) -> list[list[str]]:
    """Share out files to processes: about the same time for each, the longest first.

    Args:
        counts: File -> number of its tests.
        number: Of processes.
    """
    times = {name: SECONDS.get(name, A_TEST * count) for name, count in counts.items()}
    parts: list[list[str]] = [[] for _ in range(number)]
    sums = [0.0] * number
    for name in sorted(times, key=lambda name: (-times[name], name)):
        least = sums.index(min(sums))
        parts[least].append(name)
        sums[least] += times[name]
    return parts


def ordered(items: Sequence[pytest.Item], number: int) -> list[pytest.Item]:
    """All tests, in stretches of equal length, of which each begins with its longest files."""
    files = by_file(items)
    parts = [
        list(chain.from_iterable(files[name] for name in part))
        for part in stretches({name: len(tests) for name, tests in files.items()}, number)
    ]
    length = len(items) // number
    # The shortest tests of too long a stretch fill the others.
    spare = list(chain.from_iterable(part[length:] for part in parts))
    found: list[pytest.Item] = []
    for part in parts:
        missing = length - len(part)
        found += part[:length] + (spare[:missing] if missing > 0 else [])
        spare = spare[max(missing, 0) :]
    return found + spare
