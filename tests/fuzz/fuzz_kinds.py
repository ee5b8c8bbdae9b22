"""All kinds of mutants by name."""

import fuzz_annotations
import fuzz_checkpoints
import fuzz_images
from measure import Maker

KINDS: dict[str, Maker] = {
    **fuzz_annotations.KINDS, **fuzz_images.KINDS, **fuzz_checkpoints.KINDS
}  # fmt: skip
