"""The quickstart's synthetic dataset, and images of predictions beside the ground truth."""

from effdet_plugin.demo.scenes import make_scenes, scene, showcase

__all__ = ['make_scenes', 'scene', 'showcase']
