"""Configs: loaded, sized, changed by options, and checked before anything is built."""

from effdet_plugin.config.check import check
from effdet_plugin.config.load import Options, load, merge_options, parse_options
from effdet_plugin.config.size import find_sizes, parse_size, set_image_size, size_pipelines

__all__ = [
    'Options',
    'check',
    'find_sizes',
    'load',
    'merge_options',
    'parse_options',
    'parse_size',
    'set_image_size',
    'size_pipelines',
]
