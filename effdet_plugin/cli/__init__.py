"""The commands of ``efficientdet``, a file each; ``tools/`` has the same ones for a clone.

A command's file has a docstring, which its help begins with, ``add_arguments(parser)`` and
``run(args)``, which returns an exit code or None. Nothing here imports torch or mmdet before
``run``.
"""
