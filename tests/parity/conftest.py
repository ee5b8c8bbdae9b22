"""Makes the helpers beside these tests importable, which pytest's importlib mode does not."""

import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent))

# Numbers of the ladder are those of one thread; more threads add in another order.
torch.set_num_threads(1)
