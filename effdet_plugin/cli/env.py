"""Print versions and the stand-ins in use: add this to a bug report."""

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments: none."""


def run(args: Namespace) -> None:
    """Print the report."""
    del args
    from effdet_plugin.env import report

    print(report())
