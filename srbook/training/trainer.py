"""The trainer: one loop for everything that is trained, on CPU or GPU, that can stop at any time and resume exactly."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from srbook.accel import accelerate, choose_precision
from srbook.degradations import Bicubic
from srbook.methods.renamed import present_arguments
from srbook.parts import require
from srbook.progress import Progress
from srbook.settings import TrainingConfig
from srbook.training.checkpoint import (
    Checkpoint,
    delete_checkpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from srbook.training.distributed import any_process, copy_from_first, gather, processes, together
from srbook.training.log import Record, TrainingLog
from srbook.training.loop import Indices, Window, delayed_interrupt, ignore_interrupt
from srbook.training.optim import EMA
from srbook.training.schedule import learning_rate_factor
from srbook.training.step import Turns
from srbook.training.validation import Validation
from srbook.turns import Trainable


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
        records: the log, one dict per record with "step" and either "loss", "gradient_norm", "learning_rate", and
            "images_per_second", or figures of a validation such as "validation_psnr" (dB, on Y). Where a step has
            several turns, losses and norms carry a turn's name: "discriminator_loss".
    """

    step: int
    interrupted: bool
    records: list[Record]


class Trainer:
    """Train a method, or anything else that is `srbook.turns.Trainable`.

    With an `output` folder the run leaves `log.jsonl`, `checkpoints/`, `validation/` (images), and
    `weights.safetensors` (the averaged weights, for `srbook.load`). Called again with the same folder it resumes from
    the last checkpoint and ends with the same weights as a run that was never stopped.

    Args:
        batches: `batches[i]` is the i-th batch (hr, lr).
        stage: which of the method's stages to train; None takes the one it is in.
        output: folder of the run; None writes nothing.
        validation: called as `validation(method, step)` now and then, with the averaged weights in the method and on
            every process. It returns figures by name; their means over the processes are logged, as
            "validation_<name>". Images by name, each (1, 3, H, W), stand for a `Validation` of PSNR after bicubic
            downsampling.
        device: "auto" takes a GPU if there is one; "cpu" and "cuda" insist on theirs.
        restart: train from scratch although `output` holds a checkpoint.
        workers: processes that prepare batches; None chooses (none on a CPU, four for a GPU).
        on_log: called with all records after each new one, for live plots.

    Raises:
        ValueError: the method has nothing to train, no such stage, or no such part, a validation image cannot be
            measured, the device is not there, or `output` holds a run of another method, with other frozen parts, or
            with other settings.
        ModuleNotFoundError: Accelerate is not installed; names the extra that brings it.
    """

    def __init__(
        self,
        method: Trainable,
        batches: Batches,
        config: TrainingConfig,
        *,
        stage: str | None = None,
        output: str | Path | None = None,
        validation: Mapping[str, Tensor] | Callable[[Any, int], dict[str, float]] | None = None,
        device: str = "auto",
        restart: bool = False,
        workers: int | None = None,
        progress: bool = True,
        on_log: Callable[[list[Record]], None] | None = None,
    ):
        method.begin(stage or method.stage)
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu, or cuda, got {device!r}")
        self.output = None if output is None else Path(output)
        self.validation = self._validation(validation, method, config.seed)
        self.accelerator = require("accelerate").Accelerator(cpu=device == "cpu")
        self.device = self.accelerator.device
        if device not in ("auto", self.device.type):
            raise ValueError(f"device {device!r} was asked for, but this process computes on {self.device.type!r}")
        self._layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.method = method.to(self.device, memory_format=self._layout)
        accelerate(self.method, self.device)
        self.batches, self.config = batches, config
        self.workers = (4 if self.device.type == "cuda" else 0) if workers is None else workers
        self._is_first = self.accelerator.is_main_process
        self.show_progress = progress and self._is_first
        self.on_log = on_log
        self._precision = torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=choose_precision(config.precision, self.device) == "bf16",
        )
        self.turns = Turns(self.method, method.turns(), config)
        self.ema = EMA(method, config.ema_decay)
        self.start = 0 if restart else self._resume()
        self._spent = False

    def fit(self) -> TrainingResult:
        """Train to the configured step. Ctrl-C finishes the step, saves, and returns with `interrupted=True`.

        Afterwards the method holds the averaged weights and is in evaluation mode. A trainer runs once. A failure on
        one of several processes ends all of them. On a CPU, `srbook.accel.keep_freed_memory()` around this call saves
        up to a twentieth of the time. It tunes the process's allocator, so it is left to the caller.

        Raises:
            RuntimeError: called a second time.
            TrainingDiverged: the loss or the gradient is not finite; the last checkpoint is left as it was.
            ProcessFailed: another process of the run failed; has its message.
        """
        if self._spent:
            raise RuntimeError("fit was called before; make a new Trainer, which goes on from the output folder")
        self._spent = True
        config = self.config
        writes = self.output is not None and self._is_first
        if writes and self.start == 0:
            delete_checkpoints(self.output)
        log = TrainingLog(self.output / "log.jsonl" if writes else None, resume_at=self.start)
        self.method.train()
        self.turns.prepare(self.accelerator)
        if self.start == 0:
            copy_from_first(self.method.state_dict().values())  # fresh weights differ
            self.ema = EMA(self.method, config.ema_decay)
        step, interrupted = self.start, False
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),  # each step seeds it
            delayed_interrupt() as interrupt,
            Progress(config.steps, _label(self.method), unit="step", initial=step, enabled=self.show_progress) as bar,
        ):
            loader, window = iter(self._loader()), Window()
            for step in range(self.start + 1, config.steps + 1):
                with together():
                    hr, lr = next(loader)
                window.add(self._step(step - 1, hr, lr), images=len(hr) * processes()[1])
                last = step == config.steps
                interrupted = any_process(interrupt.is_set()) and not last
                saves = self.output is not None and (last or interrupted or step % config.save_every == 0)
                validates = self.validation is not None and (last or step % config.validate_every == 0)
                shown: dict[str, str] = {}
                if last or interrupted or saves or validates or step % config.log_every == 0:
                    shown = self._report(step, window, log, bar, saves=saves, validates=validates)
                bar.update(**shown)
                if interrupted:
                    kept = "saved; run again to go on" if self.output else "no output folder, so nothing was saved"
                    bar.write(f"stopped at step {step} of {config.steps}: {kept}")
                    break
        copy_from_first(self.ema.buffers())
        self.method.load_state_dict(self.ema.weights)
        self.method.eval()
        return TrainingResult(step=step, interrupted=interrupted, records=log.records)

    def _step(self, index: int, hr: Tensor, lr: Tensor) -> dict[str, Tensor]:
        config = self.config
        factor = learning_rate_factor(
            index,
            steps=config.steps,
            warmup=config.warmup,
            schedule=config.schedule,
            floor=config.floor,
            milestones=config.milestones,
            factor=config.factor,
        )
        hr, lr = (x.to(self.device, non_blocking=True, memory_format=self._layout) for x in (hr, lr))
        generator = self._generator(index)
        torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator
        figures = self.turns.take(hr, lr, generator, factor, self._precision)
        self.ema.update(self.method, index)
        return figures

    def _generator(self, index: int) -> torch.Generator:
        # A fresh stream per step and process: resuming needs no generator state.
        key = (self.config.seed * 1_000_003 + index) * 1_009 + processes()[0]
        return torch.Generator(self.device).manual_seed(key % 2**63)

    def _loader(self) -> DataLoader:
        rank, count = processes()
        indices = range(self.start * count + rank, self.config.steps * count, count)
        return DataLoader(
            self.batches,  # type: ignore[arg-type]  # torch asks for its own base class
            batch_size=None,
            sampler=Indices(indices),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupt,
            generator=torch.Generator(),  # else the loader draws from the global one
        )

    def _report(
        self, step: int, window: Window, log: TrainingLog, bar: Progress, *, saves: bool, validates: bool
    ) -> dict[str, str]:
        """Log a step, and save and validate the method there; returns what the progress bar shows."""
        record = self._record(step, window)
        with together():  # save before anything that may fail
            log.add(record)
            if saves and self._is_first:
                self._save(step)
        if validates:
            figures = self._validate(step)
            with together():
                log.add({"step": step, **{f"validation_{name}": figure for name, figure in figures.items()}})
            bar.write(f"step {step}: validation " + ", ".join(f"{name} {figures[name]:.4g}" for name in figures))
        with together():
            if self.on_log is not None and self._is_first:
                self.on_log(log.records)
        shown = {name.replace("_", " "): f"{record[name]:.4g}" for name in self.turns.names("loss")}
        return {**shown, "images/s": f"{record['images_per_second']:.1f}"}

    def _record(self, step: int, window: Window) -> Record:
        """Means over the steps of the window and over the processes, refused where they are not finite."""
        records = gather(window.means())
        means = {name: sum(record[name] for record in records) / len(records) for name in records[0]}
        for name in (*self.turns.names("loss"), *self.turns.names("gradient_norm")):
            bad = [rank for rank, record in enumerate(records) if not math.isfinite(record[name])]
            if bad:
                where = f" on process {bad[0]}" if len(bad) < len(records) else ""
                kept = latest_checkpoint(self.output) if self.output else None
                raise TrainingDiverged(
                    f"training diverged before step {step}: {name.replace('_', ' ')} {records[bad[0]][name]}{where}. "
                    f"Last good checkpoint: {kept or 'none'}. Try a lower learning_rate (now "
                    f"{self.config.learning_rate:g}), a longer warmup, or precision='fp32'."
                )
        return {"step": step, **means, "learning_rate": self.turns.learning_rate()}

    def _validation(
        self, given: Mapping[str, Tensor] | Callable[[Any, int], dict[str, float]] | None, method: Any, seed: int
    ) -> Callable[[Any, int], dict[str, float]] | None:
        if not isinstance(given, Mapping):
            return given
        folder = self.output / "validation" if self.output else None
        return Validation(given, Bicubic(method.scale), output=folder, seed=seed) if given else None

    @torch.no_grad()
    def _validate(self, step: int) -> dict[str, float]:
        assert self.validation is not None
        copy_from_first(self.ema.buffers())
        with self._averaged(), together():
            figures = self.validation(self.method, step)
        everywhere = gather(figures)
        return {name: sum(figures[name] for figures in everywhere) / len(everywhere) for name in figures}

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
            optimizer=self.turns.tensors(),
        )
        with self._averaged():  # first: a resumed run mends what a crash leaves undone before its checkpoint is there
            self.method.save(self.output / "weights.safetensors")
        save_checkpoint(self.output, checkpoint)

    def _identity(self) -> dict[str, Any]:
        identity = {"kind": self.method.kind, "arguments": self.method.arguments, "stage": self.method.stage}
        frozen = self.method.frozen() if hasattr(self.method, "frozen") else {}
        if frozen:
            identity["frozen"] = frozen
        return json.loads(json.dumps(identity))  # as a checkpoint gives it back: tuples become lists

    def _resume(self) -> int:
        path = latest_checkpoint(self.output) if self.output else None
        if path is None:
            return 0
        checkpoint = load_checkpoint(path)
        advice = "Choose another output folder, or restart to train from scratch."
        identity, kept = self._identity(), dict(checkpoint.method)
        kept["arguments"] = present_arguments(kept["kind"], kept["arguments"])
        frozen = identity.pop("frozen", {})
        frozen_then = kept.pop("frozen", frozen)  # older checkpoints do not say
        if kept != identity:
            raise ValueError(f"{path} belongs to another method: {kept}, not {identity}. {advice}")
        changed = sorted(name for name in frozen | frozen_then if frozen.get(name) != frozen_then.get(name))
        if changed:
            raise ValueError(f"{path} was made with other frozen parts: {', '.join(changed)}. {advice}")
        changed = self.config.must_match(TrainingConfig(**checkpoint.config))
        if changed:
            raise ValueError(f"{path} was made with other settings ({', '.join(changed)}). {advice}")
        self.method.load_state_dict(checkpoint.weights)
        self.ema.load(checkpoint.ema)
        self.turns.load(checkpoint.optimizer)
        return checkpoint.step


def _label(method: Trainable) -> str:
    return f"train {method.kind}" + (f" ({method.stage})" if method.stage != "main" else "")
