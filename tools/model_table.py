#!/usr/bin/env python3
"""``efficientdet models`` of this clone; see ``effdet_plugin/cli/models.py``."""

from _bootstrap import command, run

main = command('models')

if __name__ == '__main__':
    run(main)
