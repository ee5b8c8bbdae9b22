"""PyTorch's own format of exported programs, ``.pt2``."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from effdet_plugin.errors import CheckpointError, UserError
from effdet_plugin.export.metadata import KEY, Metadata
from effdet_plugin.export.program import MIN_SCORE, Program
from effdet_plugin.export.pt2_safety import checked_members, packed
from effdet_plugin.export.runtime import Array, Outputs, check_images
from effdet_plugin.files import read_bytes
from effdet_plugin.trained_model import device_of

EXTRA_FILE = f'{KEY}.json'
_TRACES = ('stack_trace', 'nn_module_stack', 'source_fn_stack', 'torch_fn', 'from_node', 'custom')


def build(program: Program) -> Any:
    """Return the exported program, without the example that it was made with (6 MB of zeros).

    What the exporter noted of the source is dropped, too: it has paths of this machine. So is code:
    loading would run it.

    Args:
        program: Of `effdet_plugin.export.program`.
    """
    exported = program.exported
    exported._example_inputs = None
    # Code that checks the input's sizes, of programs of any size; `check_images` does it.
    exported._guards_code = []
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, 'graph') else ():
            for key in _TRACES:
                node.meta.pop(key, None)
    return exported


def set_min_score(exported: Any, value: float) -> None:
    """Set the least score of candidates.

    Args:
        exported: From `build`.
        value: See `effdet_plugin.export.program`.
    """
    exported.state_dict[MIN_SCORE].fill_(value)


def save(exported: Any, metadata: Metadata, path: Path) -> None:
    """Write a program.

    Args:
        exported: From `build`.
        metadata: Goes into an extra file of the archive.
        path: ``.pt2``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.export.save(exported, os.fspath(path), extra_files={EXTRA_FILE: metadata.to_json()})


class Pt2Runtime:
    """A program of PyTorch.

    Args:
        module: The loaded program.
        metadata: Of the file.
        device: Where it runs.
    """

    def __init__(self, module: Any, metadata: Metadata, device: torch.device) -> None:
        self.module = module
        self.metadata = metadata
        self.device = device

    @torch.no_grad()
    def __call__(self, images: Array) -> Outputs:
        """See `effdet_plugin.export.runtime.Runtime`."""
        check_images(images, self.metadata)
        found = self.module(torch.from_numpy(images).to(self.device))
        return {
            name: array.cpu().numpy()
            for name, array in zip(self.metadata.outputs, found, strict=True)
        }


def load(path: Path, device: str = 'cpu', threads: int | None = None) -> Pt2Runtime:
    """Load a ``.pt2``; see `effdet_plugin.export.runtime.load_runtime`.

    Args:
        path: The file.
        device: torch device.
        threads: Not used: PyTorch has one number of threads for the whole process.

    Raises:
        CheckpointError: The file is damaged, of another program, or holds what could run code.
    """
    place = device_of(device)
    content = read_bytes(path)
    try:
        members = checked_members(content)
        text = members.get(f'extra/{EXTRA_FILE}', b'').decode()
        metadata = Metadata.from_json(text, str(path))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            exported = torch.export.load(packed(members))
        module: Any = exported.module()
    except CheckpointError as error:
        said = str(error)
        raise CheckpointError(said if said.startswith(str(path)) else f'{path}: {said}') from None
    except UserError:
        raise
    except Exception as error:  # of a damaged file, torch raises a dozen types
        reason = ' '.join(str(error).split())[:120]
        raise CheckpointError(
            f'{path}: PyTorch {torch.__version__} cannot load it ({reason}); export it again'
        ) from None
    return Pt2Runtime(module.to(place), metadata, place)
