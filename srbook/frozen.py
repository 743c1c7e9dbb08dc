"""Parts that a method uses and does not train: codecs, teachers, feature extractors."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A trained module as a part of another one, which neither trains nor stores it.

    Its weights follow `.to()`, but are not among `parameters()`, not in the state dict, and so not in averaged weights
    or checkpoints. It stays in evaluation mode. Gradients pass through it to its input.

    The module itself is changed: its parameters become buffers. Call it or its functions as before:
    `frozen(x)`, `frozen.module.encode(x)`.

    Args:
        module: taken over.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        for part in module.modules():
            tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
            for name, tensor in tensors:
                delattr(part, name)
                part.register_buffer(name, tensor.detach(), persistent=False)
        self.module = module.eval()

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return self.module(*args, **keywords)

    def train(self, mode: bool = True) -> "Frozen":
        """Nothing: it stays in evaluation mode."""
        return self

    def weights(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return dict(self.module.named_buffers())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take other values, as `weights` gave them.

        Raises:
            ValueError: other names or shapes.
        """
        present = self.weights()
        if present.keys() != weights.keys() or any(present[name].shape != weights[name].shape for name in present):
            raise ValueError("these weights belong to another frozen part: their names or shapes differ")
        for name, tensor in weights.items():
            part, _, own = name.rpartition(".")
            setattr(self.module.get_submodule(part), own, tensor.to(present[name].dtype))

    @property
    def hash(self) -> str:
        """Of names, types, and values: 16 digits that tell two frozen parts apart. Empty while values are missing."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.weights().items()):
            if tensor.is_meta:
                return ""
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]
