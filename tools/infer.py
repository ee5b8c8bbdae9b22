#!/usr/bin/env python3
"""``efficientdet predict`` of this clone; see ``effdet_plugin/cli/predict.py``."""

from _bootstrap import command, run

main = command('predict')

if __name__ == '__main__':
    run(main)
