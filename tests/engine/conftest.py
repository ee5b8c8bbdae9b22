"""Makes the helpers beside these tests importable, which pytest's importlib mode does not."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
