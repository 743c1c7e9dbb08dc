"""Parts that a method uses and does not train: codecs, teachers, feature extractors."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srbook.arguments import require_instance
from srbook.files import load_tensors


class Frozen(nn.Module):
    """A trained module as a part of another one, which neither trains nor stores it.

    Its weights follow `.to()`, but are not among `parameters()`, not in the state dict, and so not in averaged weights
    or checkpoints. It stays in evaluation mode. Gradients pass through it to its input.

    `module` itself is changed: its parameters become buffers. Call it or its functions as before: `frozen(x)`,
    `frozen.module.encode(x)`.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        require_instance("module", module, nn.Module)
        for part in module.modules():
            own = {"recurse": False, "remove_duplicate": False}
            for name, tensor in [*part.named_parameters(**own), *part.named_buffers(**own)]:
                delattr(part, name)
                part.register_buffer(name, tensor.detach(), persistent=False)
        self.module = module.eval()
        self.register_load_state_dict_post_hook(_forget_own_keys)

    @classmethod
    def read(cls, module: nn.Module, path: str | Path) -> "Frozen":
        """A frozen part with the weights of a safetensors file. Where the file is absent, the weights are `missing`.

        A file that is damaged or holds the weights of another module is a ValueError.
        """
        if not Path(path).is_file():
            return cls(module.to("meta"))
        try:
            module.load_state_dict(load_tensors(path)[0], assign=True)
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold the weights of {type(module).__name__} ({error})") from error
        return cls(module)

    @property
    def missing(self) -> bool:
        """Whether it has no weights yet, which `load` can bring."""
        return any(tensor.is_meta for tensor in self.weights().values())

    def forward(self, *args: Any, **keywords: Any) -> Any:
        return self.module(*args, **keywords)

    def train(self, mode: bool = True) -> "Frozen":
        """Nothing: it stays in evaluation mode."""
        return self

    def weights(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        return dict(self.module.named_buffers())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Take other values, as `weights` gave them; other names or shapes are a ValueError."""
        present = self.weights()
        if present.keys() != weights.keys() or any(present[name].shape != weights[name].shape for name in present):
            raise ValueError("these weights belong to another frozen part: their names or shapes differ")
        for name, tensor in weights.items():
            part, _, own = name.rpartition(".")
            setattr(self.module.get_submodule(part), own, tensor.to(present[name].dtype))

    @property
    def hash(self) -> str:
        """16 digits of names, shapes, and values in float32, which tell frozen parts apart; empty while missing."""
        if self.missing:
            return ""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.weights().items()):
            tensor = tensor.float() if tensor.is_floating_point() else tensor  # so `double()` changes nothing
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]


def _forget_own_keys(frozen: Frozen, found: Any) -> None:
    """Drop the key that a batch normalization adds to state dicts without it, and then does not expect."""
    own = [f"module.{name}" for name in frozen.weights()]
    found.unexpected_keys[:] = [
        key for key in found.unexpected_keys if key not in own and not key.endswith(tuple(f".{name}" for name in own))
    ]
