"""Necks."""

from effdet_plugin.models.necks.bifpn import BiFPN

__all__ = ['BiFPN']
