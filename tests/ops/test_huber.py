import pytest
import torch

from effdet_plugin.ops.huber import huber_loss


@pytest.mark.parametrize(('error', 'loss'), [(0.0, 0.0), (0.1, 0.005), (-0.1, 0.005), (0.4, 0.035)])
def test_huber__by_hand(error: float, loss: float) -> None:
    found = huber_loss(torch.tensor([1 + error]), torch.tensor([1.0]), delta=0.1)
    assert found.item() == pytest.approx(loss, rel=1e-5, abs=1e-8)


def test_huber__is_smooth_l1_times_delta() -> None:
    x, y = torch.randn(50), torch.randn(50)
    smooth = torch.nn.functional.smooth_l1_loss(x, y, reduction='none', beta=0.1)
    torch.testing.assert_close(huber_loss(x, y), 0.1 * smooth)
