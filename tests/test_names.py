"""The names people write in configs: there, and not taken from mmdet or mmengine."""

import pytest
from mmdet import registry
from mmdet.utils import register_all_modules
from mmengine.registry import Registry

# Stable, since configs contain them.
PROMISED = {
    'MODELS': [
        'EfficientDet', 'TimmBackbone', 'BiFPN', 'EfficientDetHead', 'SigmoidFocalLoss',
        'HuberLoss', 'RampUpEMA', 'DetectionPostProcessor', 'EfficientDetDataPreprocessor',
        'EfficientDetTTAModel', 'TiledDetector',
    ],
    'TASK_UTILS': [
        'EfficientDetAnchorGenerator', 'EfficientDetBoxCoder', 'BatchMaxIoUAssigner',
    ],
    'DATASETS': ['EfficientDetDataset'],
    'DATA_SAMPLERS': ['EpochSampler'],
    'TRANSFORMS': [
        'ScaleJitterCrop', 'LetterBox', 'TileViews', 'ToRGB', 'MosaicCrop', 'GridMask',
        'DetectionAutoAugment',
    ],
    'HOOKS': ['AtomicCheckpointHook'],
    'OPTIM_WRAPPERS': ['ClippedOptimWrapper'],
    'OPTIM_WRAPPER_CONSTRUCTORS': ['GroupedOptimWrapperConstructor'],
    'PARAM_SCHEDULERS': ['ReferenceLR'],
}  # fmt: skip
REGISTRIES = {name: node for name, node in vars(registry).items() if isinstance(node, Registry)}


def own_names(node: Registry) -> set[str]:
    items = node.module_dict.items()
    return {name for name, item in items if item.__module__.split('.')[0] == 'effdet_plugin'}


@pytest.mark.parametrize(
    ('node', 'name'), [(node, name) for node, names in PROMISED.items() for name in names]
)
def test_name__is_registered_by_the_import(node: str, name: str) -> None:
    assert name in own_names(REGISTRIES[node])


def test_names__do_not_clash_with_mmdet() -> None:
    # Registering a name twice raises KeyError, unless somebody forces it.
    ours = {key: own_names(node) for key, node in REGISTRIES.items()}
    register_all_modules(init_default_scope=False)
    assert {key: own_names(node) for key, node in REGISTRIES.items()} == ours


@pytest.mark.parametrize('key', REGISTRIES)
def test_names__do_not_hide_names_of_mmengine(key: str) -> None:
    node = REGISTRIES[key]
    if node.parent is None:
        pytest.skip('has no parent')
    assert not own_names(node) & set(node.parent.module_dict)
