import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from effdet_plugin.ops.top_pairs import Pairs, top_pairs, top_pairs_in_graph, top_pairs_on_cpu

seeds = st.integers(0, 2**31)
counts = st.integers(1, 80)


def random_logits(seed: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 15, 5, generator=torch.Generator().manual_seed(seed))


@given(seed=seeds, k=counts)
def test_top_pairs__equal_to_a_sort_of_all_pairs(seed: int, k: int) -> None:
    logits = random_logits(seed)
    expected, flat = logits.flatten(1).sort(descending=True)
    number = min(k, 75)
    for found in (top_pairs(logits, k), top_pairs_on_cpu(logits.split([4, 1, 10], 1), k)):
        values, anchors, labels = found
        assert torch.equal(values, expected[:, :number])
        assert torch.equal(anchors * 5 + labels, flat[:, :number])


@given(seed=seeds, k=counts)
def test_on_cpu__equal_logits_in_their_order(seed: int, k: int) -> None:
    logits = random_logits(seed).round()
    expected, flat = logits.flatten(1).sort(descending=True, stable=True)
    values, anchors, labels = top_pairs_on_cpu(logits.split([9, 6], 1), k)
    assert torch.equal(values, expected[:, :k])
    assert torch.equal(anchors * 5 + labels, flat[:, :k])


@given(seed=seeds, k=counts, above=st.sampled_from([-1.0, 0.0, 2.0, 9.0]))
def test_on_cpu__only_those_above(seed: int, k: int, above: float) -> None:
    logits = random_logits(seed)
    values, anchors, labels = top_pairs_on_cpu([logits], k, above)
    every, all_anchors, all_labels = top_pairs_on_cpu(logits.split([9, 6], 1), k)
    counts = (every > above).sum(1).tolist()
    assert values.shape[1] == max(*counts, 1)
    for image, count in enumerate(counts):
        assert torch.equal(values[image, :count], every[image, :count])
        assert (values[image, count:] == float('-inf')).all()
        assert torch.equal(anchors[image, :count], all_anchors[image, :count])
        assert torch.equal(labels[image, :count], all_labels[image, :count])


@given(seed=seeds, k=counts, above=st.sampled_from([-1.0, 0.0, 2.0, 9.0]))
def test_in_graph__the_first_of_the_top_pairs(seed: int, k: int, above: float) -> None:
    logits = random_logits(seed)
    found = top_pairs_in_graph(logits, k, above)
    counts = (logits > above).flatten(1).sum(1).clamp(max=k).tolist()
    assert found[0].shape[1] == max(*counts, 1)
    for one, other in zip(found, top_pairs(logits, k), strict=True):
        for image, count in enumerate(counts):
            assert torch.equal(one[image, :count], other[image, :count])


class InGraph(nn.Module):
    def forward(self, logits: Tensor) -> Pairs:
        return top_pairs_in_graph(logits, 20, 0.5)


@pytest.mark.parametrize('batch', [1, 3])
def test_in_graph__exports_with_any_number(batch: int) -> None:
    shapes = ({0: torch.export.Dim('batch', min=1, max=64)},)
    program = torch.export.export(InGraph(), (random_logits(0),), dynamic_shapes=shapes)
    run = program.module()
    for shift in (-9.0, 0.0, 9.0):
        logits = random_logits(1, batch) + shift
        for one, other in zip(run(logits), InGraph()(logits), strict=True):
            assert torch.equal(one, other)


def test_on_cpu__nan_takes_nobodys_place() -> None:
    logits = random_logits(0, batch=1)
    expected = top_pairs_on_cpu([logits], 5)
    damaged = torch.cat([logits, torch.full((1, 1, 5), float('nan'))], 1)
    for own, other in zip(top_pairs_on_cpu([damaged], 5), expected, strict=True):
        assert torch.equal(own, other)
