"""Makes the helpers beside these tests importable, which pytest's importlib mode does not."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
sys.path += [str(_HERE), str(_HERE.parent / 'own_data'), str(_HERE.parent / 'convert')]
