"""The reference's gradient clip: each tensor's norm first, then the norm of all."""

import torch
from torch import Tensor


@torch.no_grad()
def clip_each_then_all(grads: list[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that neither one of them nor all together exceed ``max_norm``.

    Nothing waits for the device. A NaN or an infinity ends up as NaN in its own tensor; a NaN in
    all of them.

    Source: google/automl ``efficientdet/det_model_fn.py`` and ``tf2/train_lib.py``:
    ``clip_by_norm`` of every variable, then ``clip_by_global_norm`` of the results.

    Args:
        grads: Gradients of one device; none of them is no work.
        max_norm: Largest Euclidean norm, of one and of all.

    Returns:
        Norm of all before the clip, on the device; 0 for no gradients.
    """
    if not grads:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(grads))
    total = torch.linalg.vector_norm(norms.clamp(max=max_norm))
    factors = max_norm / norms.clamp(min=max_norm) * (max_norm / total.clamp(min=max_norm))
    # A list of scalars that stay on the device.
    torch._foreach_mul_(grads, list(factors.unbind()))
    return torch.linalg.vector_norm(norms)
