"""Activations by the reference's names."""

from torch import nn

from effdet_plugin.errors import ConfigError

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    'swish': nn.SiLU,
    'silu': nn.SiLU,
    'swish_native': nn.SiLU,
    'hswish': nn.Hardswish,
    'relu': nn.ReLU,
    'relu6': nn.ReLU6,
    'mish': nn.Mish,
}


def build_activation(name: str) -> nn.Module:
    """Activation by name.

    Args:
        name: one of swish, silu, swish_native, hswish, relu, relu6, mish.

    Raises:
        ConfigError: unknown name.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(
            f'act={name!r} is not an activation; choose one of {", ".join(_ACTIVATIONS)}'
        )
    return _ACTIVATIONS[name]()
