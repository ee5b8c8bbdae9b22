import torch
import torch.nn.functional as F
from torch import nn

from effdet_plugin.ops.shapes import NoRandomValues, ShapesOnly


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.SiLU()).eval()


def test_shapes_only__a_norm_without_data_is_a_new_map_of_the_same_shape() -> None:
    with torch.device('meta'):
        norm, x = nn.BatchNorm2d(4).eval(), torch.empty(2, 4, 5, 6, dtype=torch.float16)
    with ShapesOnly():
        y = norm(x)
    assert y is not x
    assert (y.device, y.shape, y.dtype) == (x.device, x.shape, x.dtype)
    meta = network().to('meta')
    images = torch.empty(1, 3, 33, 40, device='meta')
    with ShapesOnly():
        shape = meta(images).shape
    assert shape == meta(images).shape == (1, 4, 16, 19)


def test_shapes_only__values_stay() -> None:
    real = network()
    nn.init.uniform_(real[1].running_mean)  # type: ignore[arg-type]
    images = torch.rand(1, 3, 33, 40)
    expected = real(images)
    with ShapesOnly():
        assert torch.equal(real(images), expected)
        with torch.no_grad():
            found = F.batch_norm(images, torch.ones(3), torch.ones(3), eps=0.0)
    assert torch.allclose(found, images - 1)


def test_no_random_values__draws_nothing_and_keeps_constants() -> None:
    state = torch.get_rng_state()
    with NoRandomValues():
        built = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4))
        nn.init.normal_(built[0].weight, 0, 0.1)
        nn.init.xavier_uniform_(built[2].weight)
        # It ends, though nothing is drawn: new memory may hold values outside of its bounds.
        nn.init.trunc_normal_(torch.full((9,), 5.0), 0, 0.1, -0.2, 0.2)
        built[0].weight.data.normal_()
    assert torch.equal(torch.get_rng_state(), state)
    assert built[1].weight.tolist() == [1.0] * 4
    other = network()[:2]
    first = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4))
    other.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(other[0].weight, first[0].weight)


def test_no_random_values__any_device_and_outside_all_is_as_before() -> None:
    with torch.device('meta'), ShapesOnly():
        assert nn.Conv2d(3, 4, 3).weight.is_meta
    torch.manual_seed(1)
    assert nn.Conv2d(3, 4, 3).weight.std() > 0
