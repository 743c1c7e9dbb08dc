"""The base of every method: a module with stages, each with a loss and a way to upscale, that can be saved."""

import json
from abc import ABC
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from srbook.accel import accelerate
from srbook.arguments import require_integer
from srbook.files import save_tensors
from srbook.frozen import Frozen
from srbook.images import clip, require_own
from srbook.noting import noting
from srbook.random import require_generator
from srbook.samplers import SampleResult
from srbook.turns import Turn

FORMAT = "srbook-method-1"
COMPILED = "_orig_mod."  # torch.compile puts this before the names of what it wraps


@dataclass(frozen=True)
class Stage:
    """A stage of training, declared by the names of a method's own parts and functions.

    Attributes:
        name: in presets and checkpoints.
        trains: the parts that get gradients.
        loss: the function (hr, lr, generator) to the losses.
        upscale: what upscales by what this stage trains: a part or function (lr) to the image, or, if it samples, a
            function (lr, steps=, generator=, progress=) to a `SampleResult`.
        samples: whether `upscale` takes many steps.
    """

    name: str
    trains: tuple[str, ...]
    loss: str
    upscale: str
    samples: bool = False


@runtime_checkable
class Upscaler(Protocol):
    """What is asked of that which enlarges pictures: a method, or a codec, which gives its reconstruction.

    Attributes:
        kind: its name in files.
        stage: the present stage of training.
        scale: the magnification, 1 for a codec.
        samples: whether `upscale` takes a number of steps.
    """

    kind: str
    stage: str
    scale: int
    samples: bool

    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        """As `Method.upscale`."""


class Method(nn.Module, ABC):
    """A super-resolution method: `loss` to train it, `upscale` to use it, `save` to keep it.

    A subclass declares its `kind`, its `stages`, and the arguments of its constructor: plain numbers, strings, lists,
    and dicts. They are noted when it is called, so that a checkpoint can rebuild the method, and are its attributes
    until it gives a part the same name; so are those of the constructors that it calls. Their annotations are
    checked: numbers are finite and no words, and a choice (`Literal`) is one of its words. Arguments of another type or
    out of range, and the name of a stage that the method does not have, are a ValueError.

    `parameters()` are the method's own networks; `srbook.frozen.Frozen` parts are not among them.

    Attributes:
        kind: the method's name in presets and checkpoints.
        stages: the stages of training, in order.
        starts_as: the part that takes the weights which a preset `starts_from`; empty for the whole method.
        only_in_training: frozen parts without which the method upscales; they are None where they are missing.
        stage: name of the present one: at first the last, unless the method says otherwise.
        scale: the magnification, an integer of at least 2.
        arguments: the constructor's arguments, defaults included.
    """

    kind: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    starts_as: ClassVar[str] = ""
    only_in_training: ClassVar[tuple[str, ...]] = ()
    arguments: dict[str, Any]

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = noting(cls.__init__)

    def __init__(self, scale: int):
        super().__init__()
        require_integer("scale", scale, 2)
        self.register_state_dict_post_hook(_name_as_built)
        self.register_load_state_dict_pre_hook(_name_as_compiled)
        self.scale = scale
        self.stage = self.stages[-1].name
        self.hashes_in_training: dict[str, str] = {}  # of frozen parts that may be missing now

    @classmethod
    def stage_names(cls) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return tuple(stage.name for stage in cls.stages)

    @classmethod
    def declared(cls, stage: str) -> Stage:
        """The stage of that name."""
        for declared in cls.stages:
            if declared.name == stage:
                return declared
        raise ValueError(f"{cls.kind} has the stages {', '.join(cls.stage_names())}, got {stage!r}")

    @property
    def samples(self) -> bool:
        """Whether `upscale` takes a number of steps, in the present stage."""
        return self.declared(self.stage).samples

    def loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Training losses of a batch in the present stage: scalars by name, of which "loss" is the one to minimize.

        Args:
            hr: (N, 3, sH, sW) in [0, 1], the truth, of the type and on the device of the weights.
            lr: (N, 3, H, W) in [0, 1], its degraded version, likewise.
            generator: source of all randomness (noise, times); None uses torch's global one.

        Raises:
            ValueError, TypeError: the pair breaks the image convention, or does not differ by the scale.
        """
        self.require_pair(hr, lr)
        require_generator(generator)
        return getattr(self, self.declared(self.stage).loss)(hr, lr, generator)

    @torch.no_grad()
    def upscale(
        self,
        lr: Tensor,
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> SampleResult:
        """Images (N, 3, sH, sW) in [0, 1] for `lr`, without gradients, by what the present stage has trained.

        Args:
            lr: (N, 3, H, W) in [0, 1], of any size, of the type and on the device of the method's weights.
            steps: number of sampling steps; None takes the method's default. Methods of one step refuse others.
            generator: source of all randomness; None uses torch's global one.
            progress: show a progress display over the steps, where there are several.

        Raises:
            ValueError, TypeError: `lr` breaks the image convention, or `steps` is not possible for this method.
        """
        require_own(self, lr, "lr")
        require_generator(generator)
        if steps is not None:
            require_integer("steps", steps, 1)
        accelerate(self, lr.device)
        stage = self.declared(self.stage)
        upscale = getattr(self, stage.upscale)
        if stage.samples:
            return upscale(lr, steps=steps, generator=generator, progress=progress)
        if steps not in (None, 1):
            raise ValueError(f"{self.kind} upscales in one step, got steps={steps}; leave steps out")
        return SampleResult(image=clip(upscale(lr).float()), nfe=1 if stage.trains else 0)

    def begin(self, stage: str) -> None:
        """Enter a stage: `loss` and `upscale` become its own, and only its weights require gradients."""
        self.declared(stage)
        self.stage = stage
        self.requires_grad_(False)
        for part in self.trained_in(stage):
            part.requires_grad_(True)

    def trained_in(self, stage: str) -> Sequence[nn.Module]:
        """The parts that a stage trains."""
        return [self.get_submodule(name) for name in self.declared(stage).trains]

    def turns(self) -> list[Turn]:
        """The turns of a training step: one, for the loss and all weights of the present stage."""
        return [Turn("main", [self], self.loss)]

    def frozen(self) -> dict[str, str]:
        """The hash of each frozen part by name."""
        return {name: part.hash for name, part in self.named_modules() if isinstance(part, Frozen)}

    def needed(self, names: Iterable[str]) -> list[str]:
        """The frozen parts among `names` that upscaling needs."""
        return [name for name in names if name.split(".")[0] not in self.only_in_training]

    def save(self, path: str | Path, *, carry: bool = False) -> Path:
        """Write weights, stage, and the arguments that rebuild the method to one safetensors file, atomically.

        `srbook.load(path)` gives the method back, in the same stage. With `carry` the file holds the frozen parts, too;
        otherwise it names them by their hashes, and the machine that reads it must have them.
        """
        config = {"method": self.kind, "arguments": self.arguments, "stage": self.stage}
        tensors = self.state_dict()
        if frozen := {**self.hashes_in_training, **self.frozen()}:
            config["frozen"] = frozen
            for name in self.needed(frozen) if carry else ():
                weights = self.get_submodule(name).weights()
                tensors |= {f"frozen/{name}/{key}": tensor for key, tensor in weights.items()}
        return save_tensors(path, tensors, {"format": FORMAT, "config": json.dumps(config)})

    def require_pair(self, hr: Tensor, lr: Tensor) -> None:
        """Check that both images keep the convention and differ by the scale; otherwise a ValueError or TypeError."""
        require_own(self, hr, "hr")
        require_own(self, lr, "lr")
        expected = (lr.shape[0], 3, lr.shape[2] * self.scale, lr.shape[3] * self.scale)
        if tuple(hr.shape) != expected:
            raise ValueError(
                f"hr must be {self.scale} times the size of lr: lr is {tuple(lr.shape)}, "
                f"so hr must be {expected}, got {tuple(hr.shape)}"
            )


def _name_as_built(method: Method, tensors: dict[str, Tensor], prefix: str, _metadata: Any) -> None:
    """Names of parts that `torch.compile` has wrapped, as they were before, so that every method can load them."""
    for name in [name for name in tensors if COMPILED in name]:
        tensors[name.replace(COMPILED, "")] = tensors.pop(name)


def _name_as_compiled(method: Method, tensors: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
    """The way back: the names that this method's tensors have, compiled or not."""
    own = [*method.named_parameters(remove_duplicate=False), *method.named_buffers(remove_duplicate=False)]
    names = {name.replace(COMPILED, ""): name for name, _ in own}
    for name in list(tensors):
        plain = name.removeprefix(prefix).replace(COMPILED, "")
        wanted = prefix + names.get(plain, plain)
        if wanted != name:
            tensors[wanted] = tensors.pop(name)
