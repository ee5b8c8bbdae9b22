"""``python -m effdet_plugin`` is the console command ``efficientdet``."""

from effdet_plugin.cli.main import main

if __name__ == '__main__':
    main()
