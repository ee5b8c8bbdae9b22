#!/usr/bin/env python3
"""``efficientdet train`` of this clone; see ``effdet_plugin/cli/train.py``."""

from _bootstrap import command, run

main = command('train')

if __name__ == '__main__':
    run(main)
