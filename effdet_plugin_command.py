"""Entry of the console command ``efficientdet``.

`effdet_plugin` sees that this module was imported first, and then registers its parts only when a
command runs: help and mistakes take neither torch nor mmdet, and no seconds.
"""


def main() -> None:
    """Run the command line; ends the program."""
    from effdet_plugin.cli.main import main as run_command

    run_command()
