"""Swap layers in place for equal ones that are faster on a device."""

import torch
from torch import nn

from srbook.accel.convolution import FastConvolution
from srbook.accel.doubling import FoldedDoubling
from srbook.accel.dropout import FastDropout
from srbook.accel.normalization import FastGroupNorm

SWAPS = {"cpu": (FastConvolution, FoldedDoubling, FastGroupNorm, FastDropout)}


def accelerate(module: nn.Module, device: torch.device | str) -> None:
    """Swap the layers of `module` that have a faster equal on a device, such as "cpu"; elsewhere nothing happens.

    Only the class of a layer changes. It stays the same object, with its parameters, hooks, and names in the state
    dict, so optimizers, checkpoints, and copies are not affected. Results differ by rounding. On another device or in
    another number format a swapped layer computes as the plain one. Layers of other classes, such as parametrized ones,
    are left alone, and a second call changes nothing. Gradients of swapped layers cannot be differentiated again;
    `restore` brings the plain ones back.
    """
    for layer in module.modules():
        for fast in SWAPS.get(torch.device(device).type, ()):
            if fast.replaces(layer):
                layer.plain_class = type(layer)
                layer.__class__ = fast
                break


def restore(module: nn.Module) -> None:
    """Undo `accelerate`."""
    for layer in module.modules():
        if any(type(layer) in swaps for swaps in SWAPS.values()):  # not one that was parametrized since
            layer.__class__ = layer.plain_class
            del layer.plain_class
