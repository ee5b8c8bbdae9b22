"""The quickstart's synthetic dataset, and images of predictions beside the ground truth."""

from effdet_plugin.demo.mosaics import draw_mosaic, make_mosaics
from effdet_plugin.demo.scenes import make_scenes, scene, showcase

__all__ = ['draw_mosaic', 'make_mosaics', 'make_scenes', 'scene', 'showcase']
