"""Layers that backbone, neck and head are built from."""
