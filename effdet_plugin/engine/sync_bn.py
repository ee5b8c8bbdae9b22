"""Batch normalisation over all processes, by the one converter that keeps timm's activations."""

import torch
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct, convert_sync_batchnorm
from torch import nn


def to_sync_bn(model: nn.Module) -> nn.Module:
    """Return the model with every BN synchronised; parameters and statistics are shared with it.

    timm's ``BatchNormAct2d`` is a BN with an activation behind it. The converters of torch and
    mmengine know the BN alone and drop the activation without a word.
    """
    converted: nn.Module = convert_sync_batchnorm(model)
    return converted


def from_sync_bn(model: nn.Module) -> nn.Module:
    """Return the model with plain BN in place of synchronised; the inverse of `to_sync_bn`."""
    if isinstance(model, nn.SyncBatchNorm):
        return _plain_bn(model)
    for name, child in model.named_children():
        model.add_module(name, from_sync_bn(child))
    return model


def _plain_bn(norm: nn.SyncBatchNorm) -> nn.BatchNorm2d:
    kind = BatchNormAct2d if isinstance(norm, SyncBatchNormAct) else nn.BatchNorm2d
    plain: nn.BatchNorm2d = kind(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    if isinstance(norm, SyncBatchNormAct):
        plain.act, plain.drop = norm.act, norm.drop
    if norm.affine:
        plain.weight, plain.bias = norm.weight, norm.bias
    plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
    plain.num_batches_tracked = norm.num_batches_tracked
    return plain.train(norm.training)


def can_sync_bn() -> bool:
    """Whether the processes of this run can exchange BN statistics: on GPUs only."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return distributed and torch.cuda.is_available()
