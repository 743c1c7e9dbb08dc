"""The trainer: one loop for every method, on CPU or GPU, that can be stopped at any time and goes on exactly."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from srbook.accel import accelerate, choose_precision
from srbook.data import write_image
from srbook.degradations import bicubic_downsample
from srbook.images import require_one_image
from srbook.methods import Method
from srbook.metrics import psnr
from srbook.parts import require
from srbook.progress import Progress
from srbook.training.adam import FusedAdamW
from srbook.training.checkpoint import (
    Checkpoint,
    delete_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from srbook.training.config import TrainingConfig
from srbook.training.log import Record, TrainingLog
from srbook.training.loop import Indices, Window, delayed_interrupt, ignore_interrupt
from srbook.training.schedule import EMA, learning_rate_factor, parameter_groups


class Batches(Protocol):
    """Training data with random access: item i is always the same batch (hr, lr). See `srbook.data.PairedPatches`."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


class TrainingDiverged(FloatingPointError):
    """The loss or its gradient stopped being a finite number."""


@dataclass(frozen=True)
class TrainingResult:
    """What `Trainer.fit` returns.

    Attributes:
        step: optimizer steps done in all.
        interrupted: whether Ctrl-C ended the run before its last step.
        records: the log, one dict per record with "step" and "loss", "learning_rate", "gradient_norm",
            "images_per_second", or "validation_psnr" (dB, on Y).
    """

    step: int
    interrupted: bool
    records: list[Record]


class Trainer:
    """Train a method.

    With an `output` folder the run leaves `log.jsonl`, `checkpoints/`, `validation/` (images) and
    `weights.safetensors` (the averaged weights, for `srbook.load`). Called again with the same folder it goes on
    from the last checkpoint and ends with the same weights as a run that was never stopped.

    Args:
        method: a method with parameters to train.
        batches: `batches[i]` is the i-th batch (hr, lr).
        config: the settings.
        stage: which of the method's stages to train; None takes the one it is in.
        output: folder of the run; None writes nothing.
        validation: high-resolution images (1, 3, H, W) by name, with sides divisible by the scale and longer than
            twice the scale, since PSNR leaves that much out at the borders. They are degraded by bicubic
            downsampling and upscaled with the averaged weights.
        device: "auto" takes a GPU if there is one; "cpu" and "cuda" insist on theirs.
        restart: train from scratch although `output` holds a checkpoint.
        workers: processes that prepare batches; None chooses (none on a CPU, four for a GPU).
        progress: show a progress bar.
        on_log: called with all records after each new one, for live plots.

    Raises:
        ValueError: the method has nothing to train, no such stage, or no such part, a validation image cannot be
            measured, the device is not there, or `output` holds a run of another method or other settings.
        ModuleNotFoundError: Accelerate is not installed; names the extra that brings it.
    """

    def __init__(
        self,
        method: Method,
        batches: Batches,
        config: TrainingConfig,
        *,
        stage: str | None = None,
        output: str | Path | None = None,
        validation: Mapping[str, Tensor] | None = None,
        device: str = "auto",
        restart: bool = False,
        workers: int | None = None,
        progress: bool = True,
        on_log: Callable[[list[Record]], None] | None = None,
    ):
        method.begin(stage or method.stage)
        if not any(parameter.requires_grad for parameter in method.parameters()):
            raise ValueError(f"{method.kind} has no weights to train")
        for name, image in (validation or {}).items():
            _require_measurable(image, f"validation image {name!r}", method.scale)
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu, or cuda, got {device!r}")
        self.accelerator = require("accelerate").Accelerator(cpu=device == "cpu")
        self.device = self.accelerator.device
        if device not in ("auto", self.device.type):
            raise ValueError(f"device {device!r} was asked for, but this process computes on {self.device.type!r}")
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.method = method.to(self.device, memory_format=layout)
        accelerate(self.method, self.device)
        self.batches, self.config = batches, config
        self.output = None if output is None else Path(output)
        self.validation = validation or {}
        self.workers = (4 if self.device.type == "cuda" else 0) if workers is None else workers
        self.show_progress = progress and self.accelerator.is_main_process
        self.on_log = on_log
        self._layout = layout
        self._autocast = torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=choose_precision(config.precision, self.device) == "bf16",
        )
        self.optimizer = FusedAdamW(
            parameter_groups(method, config),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.ema = EMA(method, config.ema_decay)
        self.start = 0 if restart else self._resume()
        self._spent = False

    def fit(self) -> TrainingResult:
        """Train to the configured step. Ctrl-C finishes the step, saves, and returns with `interrupted=True`.

        Afterwards the method holds the averaged weights and is in evaluation mode. A trainer runs once.

        Raises:
            RuntimeError: called a second time.
            TrainingDiverged: the loss or the gradient is not finite; the last checkpoint is left as it was.
        """
        if self._spent:
            raise RuntimeError("fit was called before; make a new Trainer, which goes on from the output folder")
        self._spent = True
        config = self.config
        writes = self.output is not None and self.accelerator.is_main_process
        if writes and self.start == 0:
            delete_checkpoints(self.output)
        log = TrainingLog(self.output / "log.jsonl" if writes else None, resume_at=self.start)
        model = self.accelerator.prepare(_LossModule(self.method.train()))
        if self.start == 0:  # from the weights that data-parallel processes now share
            self.ema = EMA(self.method, config.ema_decay)
        window = Window()
        step, interrupted = self.start, False
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),  # each step seeds it
            delayed_interrupt() as interrupt,
            Progress(
                config.steps,
                _label(self.method),
                unit="step",
                initial=step,
                enabled=self.show_progress,
            ) as bar,
        ):
            for step, (hr, lr) in enumerate(self._loader(), start=self.start + 1):
                losses, norm = self._step(model, step - 1, hr, lr)
                window.add(losses, norm, images=len(hr) * self.accelerator.num_processes)
                last = step == config.steps
                interrupted = self._agreed(interrupt.is_set(), step) and not last
                saves = writes and (last or interrupted or step % config.save_every == 0)
                validates = bool(self.validation) and (last or step % config.validate_every == 0)
                figures: dict[str, str] = {}
                if last or interrupted or saves or validates or step % config.log_every == 0:
                    record = window.record(step, self.optimizer.param_groups[0]["lr"])
                    self._require_finite(record)
                    log.add(record)
                    figures = {
                        "loss": f"{record['loss']:.4g}",
                        "images/s": f"{record['images_per_second']:.1f}",
                    }
                if saves:  # before anything that may fail
                    self._save(step)
                if validates and self.accelerator.is_main_process:
                    quality = self._validate(step)
                    log.add({"step": step, "validation_psnr": quality})
                    bar.write(f"step {step}: validation PSNR {quality:.2f} dB (Y)")
                if figures and self.on_log is not None and self.accelerator.is_main_process:
                    self.on_log(log.records)
                bar.update(**figures)
                if interrupted:
                    kept = "saved; run again to go on" if self.output else "no output folder, so nothing was saved"
                    bar.write(f"stopped at step {step} of {config.steps}: {kept}")
                    break
        self.method.load_state_dict(self.ema.weights)
        self.method.eval()
        return TrainingResult(step=step, interrupted=interrupted, records=log.records)

    def _step(self, model: nn.Module, index: int, hr: Tensor, lr: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        config = self.config
        factor = learning_rate_factor(index, steps=config.steps, warmup=config.warmup, schedule=config.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = group["highest"] * factor
        hr, lr = (x.to(self.device, non_blocking=True, memory_format=self._layout) for x in (hr, lr))
        generator = self._generator(index)
        torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator
        with self._autocast:
            losses = model(hr, lr, generator)
        self.accelerator.backward(losses["loss"])
        if config.clip_value < math.inf:
            self.accelerator.clip_grad_value_(self.method.parameters(), config.clip_value)
        norm = self.accelerator.clip_grad_norm_(self.method.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.method, index)
        return {name: loss.detach() for name, loss in losses.items()}, norm

    def _generator(self, index: int) -> torch.Generator:
        # A fresh stream per step and process: resuming needs no generator state.
        key = (self.config.seed * 1_000_003 + index) * 1_009 + self.accelerator.process_index
        return torch.Generator(self.device).manual_seed(key % 2**63)

    def _loader(self) -> DataLoader:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        indices = range(self.start * world + rank, self.config.steps * world, world)
        return DataLoader(
            self.batches,  # type: ignore[arg-type]  # torch asks for its own base class
            batch_size=None,
            sampler=Indices(indices),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupt,
            generator=torch.Generator(),  # else the loader draws from the global one
        )

    def _agreed(self, requested: bool, step: int) -> bool:
        if self.accelerator.num_processes == 1:
            return requested
        if step % self.config.log_every:
            return False  # processes must leave the loop at the same step
        flag = torch.tensor(float(requested), device=self.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _require_finite(self, record: Record) -> None:
        if all(torch.isfinite(torch.tensor(record[name])) for name in ("loss", "gradient_norm")):
            return
        kept = latest_checkpoint(self.output) if self.output else None
        raise TrainingDiverged(
            f"training diverged before step {record['step']}: loss {record['loss']}, gradient norm "
            f"{record['gradient_norm']}. Last good checkpoint: {kept or 'none'}. Try a lower learning_rate (now "
            f"{self.config.learning_rate:g}), a longer warmup, or precision='fp32'."
        )

    @torch.no_grad()
    def _validate(self, step: int) -> float:
        qualities = []
        with self._averaged():
            for name, hr in self.validation.items():
                lr = bicubic_downsample(hr, self.method.scale).to(self.device)
                generator = torch.Generator(self.device).manual_seed(self.config.seed)
                image = self.method.upscale(lr, generator=generator).image.cpu()
                qualities.append(psnr(image, hr, channel="y", border=self.method.scale).item())
                if self.output is not None:
                    write_image(self.output / "validation" / f"step-{step:08d}-{name}.png", image[0])
        return sum(qualities) / len(qualities)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        present = {name: tensor.clone() for name, tensor in self.method.state_dict().items()}
        self.method.load_state_dict(self.ema.weights)
        self.method.eval()
        try:
            yield
        finally:
            self.method.load_state_dict(present)
            self.method.train()

    def _save(self, step: int) -> None:
        assert self.output is not None
        checkpoint = Checkpoint(
            step=step,
            method=self._identity(),
            config=self.config.model_dump(mode="json"),
            weights=self.method.state_dict(),
            ema=self.ema.weights,
            optimizer=optimizer_tensors(self.optimizer),
        )
        with self._averaged():  # first: a resumed run mends what a crash leaves undone before its checkpoint is there
            self.method.save(self.output / "weights.safetensors")
        save_checkpoint(self.output, checkpoint)

    def _identity(self) -> dict[str, Any]:
        identity = {"kind": self.method.kind, "arguments": self.method.arguments, "stage": self.method.stage}
        return json.loads(json.dumps(identity))  # as a checkpoint gives it back: tuples become lists

    def _resume(self) -> int:
        path = latest_checkpoint(self.output) if self.output else None
        if path is None:
            return 0
        checkpoint = load_checkpoint(path)
        advice = "Choose another output folder, or restart to train from scratch."
        if checkpoint.method != self._identity():
            raise ValueError(f"{path} belongs to another method: {checkpoint.method}, not {self._identity()}. {advice}")
        changed = self.config.must_match(TrainingConfig(**checkpoint.config))
        if changed:
            raise ValueError(f"{path} was made with other settings ({', '.join(changed)}). {advice}")
        self.method.load_state_dict(checkpoint.weights)
        self.ema.load(checkpoint.ema)
        restore_optimizer(self.optimizer, checkpoint.optimizer)
        return checkpoint.step


def _label(method: Method) -> str:
    return f"train {method.kind}" + (f" ({method.stage})" if len(method.stages) > 1 else "")


def _require_measurable(image: Tensor, name: str, scale: int) -> None:
    """Refuse before the training what would end it at the first validation."""
    height, width = require_one_image(image, name).shape[-2:]
    if height % scale or width % scale or min(height, width) <= 2 * scale:
        raise ValueError(
            f"{name} is {height} x {width}; its sides must be divisible by the scale {scale} and longer than "
            f"{2 * scale} (srbook.degradations.crop_to_multiple)"
        )


class _LossModule(nn.Module):
    """Calls `Method.loss` as a forward pass, which is what data-parallel wrappers intercept."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, hr: Tensor, lr: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return self.method.loss(hr, lr, generator)
