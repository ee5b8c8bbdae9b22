"""Configs: loaded, sized, changed by options, and checked before anything is built."""

from effdet_plugin.config.dataset_nodes import (
    find_sizes,
    parse_size,
    set_image_size,
    size_pipelines,
)
from effdet_plugin.config.load import Options, check, load, merge_options, parse_options

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
