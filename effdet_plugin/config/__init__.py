"""Load configs, set their image size and options, and check them before anything is built."""

from effdet_plugin.config.image_size import (
    find_sizes,
    parse_size,
    set_image_size,
    set_resize_mode,
)
from effdet_plugin.config.load import check, load, resize_mode_of, size_pipelines, tell_differences
from effdet_plugin.config.networks import use_network
from effdet_plugin.config.options import Options, merge_options, parse_options
from effdet_plugin.shipped_configs import path

__all__ = [
    'Options',
    'check',
    'find_sizes',
    'load',
    'merge_options',
    'parse_options',
    'parse_size',
    'path',
    'resize_mode_of',
    'set_image_size',
    'set_resize_mode',
    'size_pipelines',
    'tell_differences',
    'use_network',
]
