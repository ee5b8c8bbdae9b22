"""Weights of other projects to ours and back: key maps are data, one engine walks them."""

from effdet_plugin.convert.api import Converted, convert, read_tensors

__all__ = ['Converted', 'convert', 'read_tensors']
