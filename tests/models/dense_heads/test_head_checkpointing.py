"""The head's towers recomputed in backward."""

import torch
from torch import Tensor

from effdet_plugin.models.dense_heads.efficientdet_head import EfficientDetHead


def build(with_cp: bool) -> EfficientDetHead:
    torch.manual_seed(0)
    head = EfficientDetHead(
        3, in_channels=8, num_levels=2, survival_prob=0.8, with_cp=with_cp, norm_momentum=0.1
    )
    return head.train()


def maps() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 8, s, s, generator=generator).requires_grad_() for s in (8, 4)]


def test_with_cp__same_outputs_gradients_and_statistics() -> None:
    states, gradients, outputs = [], [], []
    for with_cp in (False, True):
        head, feats = build(with_cp), maps()
        torch.manual_seed(2)  # of the dropped connections
        logits, deltas = head(feats)
        sum((x.square().mean() for x in logits + deltas), torch.zeros(())).backward()
        outputs.append([x.detach() for x in logits + deltas])
        gradients.append([p.grad for p in [*head.parameters(), *feats]])
        states.append(head.state_dict())
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_with_cp__keeps_no_maps() -> None:
    def kept(with_cp: bool) -> int:
        found: list[Tensor] = []

        def note(saved: Tensor) -> Tensor:
            found.append(saved)
            return saved

        head = build(with_cp)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            head(maps())
        return sum(x.dim() == 4 and not x.is_leaf for x in found)

    assert kept(False) > 40
    assert kept(True) == 0
