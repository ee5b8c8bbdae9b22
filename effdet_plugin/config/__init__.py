"""Configs: loaded, sized, changed by options, and checked before anything is built."""

from effdet_plugin.config.checking import check
from effdet_plugin.config.loading import load
from effdet_plugin.config.options import merge_options, parse_options
from effdet_plugin.config.sizes import find_sizes, parse_size, set_image_size

__all__ = [
    'check',
    'find_sizes',
    'load',
    'merge_options',
    'parse_options',
    'parse_size',
    'set_image_size',
]
