"""The trainer: one loop for everything that is trained, on CPU or GPU, that can stop at any time and resume exactly."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srbook.accel import accelerate, choose_precision
from srbook.arguments import require_function, require_instance, require_integer, require_numbers, shown
from srbook.degradations import Bicubic
from srbook.files import require_tensors
from srbook.numbers import first_not_finite
from srbook.parts import require
from srbook.progress import Progress
from srbook.settings import TrainingConfig
from srbook.training.checkpoint import Checkpoint, latest_checkpoint, newest_checkpoint, save_checkpoint
from srbook.training.distributed import copy_from_first, gather, highest, processes, together
from srbook.training.feed import Batches, feed, is_dead_worker, worker_died
from srbook.training.folder import LOG, VALIDATION, WEIGHTS, clear, locked, tidy
from srbook.training.log import Record, TrainingLog
from srbook.training.loop import Clock, Window, delayed_ending
from srbook.training.optim import EMA
from srbook.training.resume import identity_of, require_same_circumstances, require_same_run
from srbook.training.schedule import learning_rate_factor
from srbook.training.step import Turns
from srbook.training.validation import Validation
from srbook.turns import Trainable


class TrainingDiverged(FloatingPointError):
    """The loss or its gradient stopped being a finite number."""


@dataclass(frozen=True)
class TrainingResult:
    """What `Trainer.fit` returns.

    Attributes:
        step: optimizer steps done in all.
        interrupted: whether a signal ended the run before its last step.
        records: the log, one dict per record with "step" and either "loss", "gradient_norm", "learning_rate", and
            "images_per_second", or figures of a validation such as "validation_psnr" (dB, on Y). Where a step has
            several turns, losses and norms carry a turn's name: "discriminator_loss".
        signal: which signal that was.
    """

    step: int
    interrupted: bool
    records: list[Record]
    signal: int | None = None


class Trainer:
    """Train a method, or anything else that is `srbook.turns.Trainable`.

    With an `output` folder the run leaves `log.jsonl`, `checkpoints/`, `validation/` (images), and
    `weights.safetensors` (the averaged weights, for `srbook.load`). Called again with the same folder it resumes from
    the newest intact checkpoint and ends with the same weights as a run that was never stopped. Ctrl-C, SIGTERM, and
    SIGHUP finish the step and save (in the main thread, which alone hears them); so does any error that comes between
    two steps. One run at a time writes to a folder.

    Args:
        batches: `batches[i]` is the i-th batch (hr, lr).
        stage: which of the method's stages to train; None takes the one it is in.
        output: folder of the run; None writes nothing.
        validation: called as `validation(method, step)` now and then, with the averaged weights in the method and on
            every process. It returns figures by name; their means over the processes are logged, as
            "validation_<name>". Images by name, each (1, 3, H, W), stand for a `Validation` of PSNR after bicubic
            downsampling.
        device: "auto" takes a GPU if there is one; "cpu" and "cuda" insist on theirs.
        restart: train from scratch although `output` holds a run, which is deleted.
        accept_changes: go on from a checkpoint although the data or the number of processes are others.
        origin: what tells apart the weights that the method begins with, such as `srbook.files.checksum` of those that
            an earlier stage trained; a resumed run must have begun with the same.
        workers: processes that prepare batches; None chooses (none on a CPU, four for a GPU).
        on_log: called with all records after each new one, for live plots.

    Raises:
        ValueError: the method has nothing to train, no such stage, or no such part, a validation image cannot be
            measured, the device is not there, or `output` holds a run of another method, with other frozen parts,
            settings, data, or weights at its start, or no intact checkpoint.
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
        accept_changes: bool = False,
        origin: str | None = None,
        workers: int | None = None,
        progress: bool = True,
        on_log: Callable[[list[Record]], None] | None = None,
    ):
        require_instance("method", method, nn.Module, "srbook.build(name) makes one")
        if not all(hasattr(method, name) for name in ("kind", "arguments", "stage", "begin", "turns")):
            raise TypeError(f"a {type(method).__name__} is not srbook.turns.Trainable, as methods are")
        require_instance("config", config, TrainingConfig)
        if not hasattr(batches, "__getitem__"):
            raise TypeError(f"batches must be data with random access, such as PairedPatches, got {shown(batches)}")
        if workers is not None:
            require_integer("workers", workers, 0)
        method.begin(stage or method.stage)
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device must be auto, cpu, or cuda, got {device!r}")
        if output is not None:
            require_instance("output", output, str | PathLike)
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
        self.origin, self.data = origin, getattr(batches, "fingerprint", None)
        self.restart, self.resumed_from = restart, None
        self.start = 0 if restart or self.output is None else self._resume(self.output, accept_changes)
        self._done = self._saved = self.start  # steps
        self._clock = Clock(config.save_minutes)
        self._spent = False

    def fit(self) -> TrainingResult:
        """Train to the configured step. Ctrl-C finishes the step, saves, and returns with `interrupted=True`.

        Afterwards the method holds the averaged weights and is in evaluation mode. A trainer runs once. A failure on
        one of several processes ends all of them. On a CPU, `srbook.accel.keep_freed_memory()` around this call saves
        up to a twentieth of the time. It tunes the process's allocator, so it is left to the caller.

        Raises:
            RuntimeError: called a second time.
            ValueError: another run writes to the output folder, or has since this trainer was made.
            TrainingDiverged: the loss, the gradient, or a weight is not finite; the last checkpoint is left as it was.
            ProcessFailed: another process of the run failed; has its message.
            Exception: what the data, the method, a validation, or `on_log` raises. The steps done are saved before, but
                where it comes between two turns of a step.
        """
        if self._spent:
            raise RuntimeError("fit was called before; make a new Trainer, which goes on from the output folder")
        self._spent = True
        writes = self.output is not None and self._is_first
        with ExitStack() as stack:
            with together():
                if writes:
                    stack.enter_context(locked(self.output))
                log = self._begin_log(self.output if writes else None)
            try:
                return self._fit(log)
            except TrainingDiverged:
                raise
            except Exception as error:
                if writes:
                    self._rescue()
                if is_dead_worker(error):
                    raise worker_died(error) from error
                raise

    def _begin_log(self, folder: Path | None) -> TrainingLog:
        if folder is None:
            return TrainingLog(None)
        if self.restart:
            clear(folder)
        elif latest_checkpoint(folder) != self._seen:
            raise ValueError(f"another run has written to {folder} since this trainer was made; make a new one")
        tidy(folder, self.start)
        return TrainingLog(folder / LOG, resume_at=self.start)

    def _fit(self, log: TrainingLog) -> TrainingResult:
        config = self.config
        self.method.train()
        self.turns.prepare(self.accelerator)
        if self.start == 0:
            copy_from_first(self.method.state_dict().values())  # fresh weights differ
            self.ema = EMA(self.method, config.ema_decay)
        step, number = self.start, 0
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),  # each step seeds it
            delayed_ending() as ending,
            Progress(config.steps, _label(self.method), unit="step", initial=step, enabled=self.show_progress) as bar,
        ):
            batches, window = self._feed(), Window()
            for step in range(self.start + 1, config.steps + 1):
                with together():
                    hr, lr = next(batches)
                window.add(self._step(step - 1, hr, lr), images=len(hr) * processes()[1])
                last = step == config.steps
                number, due = highest(ending.number, self._clock.due())
                ends = last or number > 0
                validates = self.validation is not None and (last or step % config.validate_every == 0)
                saves = self.output is not None and (ends or validates or due or step % config.save_every == 0)
                shown: dict[str, str] = {}
                if ends or saves or validates or step % config.log_every == 0:
                    shown = self._report(step, window, log, bar, saves=saves, validates=validates)
                bar.update(**shown)
                if number and not last:
                    kept = "saved; run again to go on" if self.output else "no output folder, so nothing was saved"
                    bar.write(f"stopped at step {step} of {config.steps}: {kept}")
                    break
        copy_from_first(self.ema.buffers())
        self.method.load_state_dict(self.ema.weights)
        self.method.eval()
        interrupted = number > 0 and step < config.steps
        return TrainingResult(step, interrupted, log.records, signal=number if interrupted else None)

    def _rescue(self, tries: int = 2) -> None:
        """Save the steps that are done, after an error."""
        if self._done == self._saved or self.turns.moving:
            return
        self.ema.restore_buffers(self.method)
        try:
            self._save(self._done)
        except Exception as error:  # the first one is the one to report
            if is_dead_worker(error) and tries > 1:
                return self._rescue(tries - 1)
            warnings.warn(f"the state after step {self._done} could not be saved: {error}", stacklevel=2)

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
        hr, lr = (self._moved(x) for x in (hr, lr))
        generator = self._generator(index)
        torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator
        figures = self.turns.take(hr, lr, generator, factor, self._precision)
        self.ema.update(self.method, index)
        self.turns.moving, self._done = False, index + 1
        return figures

    def _moved(self, x: Tensor) -> Tensor:
        layout = self._layout if x.ndim == 4 else torch.preserve_format  # classes have no channels
        return x.to(self.device, non_blocking=True, memory_format=layout)

    def _generator(self, index: int) -> torch.Generator:
        # A fresh stream per step and process: resuming needs no generator state.
        key = (self.config.seed * 1_000_003 + index) * 1_009 + processes()[0]
        return torch.Generator(self.device).manual_seed(key % 2**63)

    def _feed(self) -> Iterator[tuple[Tensor, Tensor]]:
        rank, count = processes()
        indices = range(self.start * count + rank, self.config.steps * count, count)
        return feed(self.batches, indices, workers=self.workers, pin_memory=self.device.type == "cuda")

    def _report(
        self, step: int, window: Window, log: TrainingLog, bar: Progress, *, saves: bool, validates: bool
    ) -> dict[str, str]:
        """Log a step, and save and validate the method there; returns what the progress bar shows."""
        record = self._record(step, window)
        with together():  # save before anything that may fail
            log.add(record)
            if saves and self._is_first:
                self._save(step)
        if saves:
            self._clock.restart()
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
                raise self._diverged(step, f"{name.replace('_', ' ')} {records[bad[0]][name]}{where}")
        return {"step": step, **means, "learning_rate": self.turns.learning_rate()}

    def _diverged(self, step: int, what: str) -> TrainingDiverged:
        kept = latest_checkpoint(self.output) if self.output else None
        return TrainingDiverged(
            f"training diverged before step {step}: {what}. Last good checkpoint: {kept or 'none'}. Try a lower "
            f"learning_rate (now {self.config.learning_rate:g}), a longer warmup, or precision='fp32'."
        )

    def _validation(
        self, given: Mapping[str, Tensor] | Callable[[Any, int], dict[str, float]] | None, method: Any, seed: int
    ) -> Callable[[Any, int], dict[str, float]] | None:
        if not isinstance(given, Mapping):
            if given is not None:
                require_function("validation", given)
            return given
        folder = self.output / VALIDATION if self.output else None
        return Validation(given, Bicubic(method.scale), output=folder, seed=seed) if given else None

    @torch.no_grad()
    def _validate(self, step: int) -> dict[str, float]:
        assert self.validation is not None
        copy_from_first(self.ema.buffers())
        with self._averaged(), together():
            figures = _as_figures(self.validation(self.method, step))
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
            method=identity_of(self.method),
            config=self.config.model_dump(mode="json"),
            weights=self.method.state_dict(),
            ema=self.ema.weights,
            optimizer=self.turns.tensors(),
            origin=self.origin,
            data=self.data,
            processes=processes()[1],
        )
        if (name := first_not_finite(checkpoint.tensors())) is not None:
            raise self._diverged(step, f"{name} holds a number that is not finite")
        with self._averaged():  # first: a resumed run mends what a crash leaves undone before its checkpoint is there
            self.method.save(self.output / WEIGHTS)
        save_checkpoint(self.output, checkpoint)
        self._saved = step

    def _resume(self, folder: Path, accept_changes: bool) -> int:
        self._seen = latest_checkpoint(folder)
        newest = newest_checkpoint(folder)
        if newest is None:
            return 0
        path, checkpoint = newest
        require_same_run(path, checkpoint, identity=identity_of(self.method), config=self.config, origin=self.origin)
        if not accept_changes:
            require_same_circumstances(path, checkpoint, data=self.data, processes=processes()[1])
        require_tensors(checkpoint.weights, self.method.state_dict(), path, self.method.kind)
        require_tensors(checkpoint.ema, self.ema.weights, path, f"the averages of {self.method.kind}")
        try:
            self.turns.load(checkpoint.optimizer)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        self.method.load_state_dict(checkpoint.weights)
        self.ema.load(checkpoint.ema)
        self.resumed_from = path
        return checkpoint.step


def _as_figures(given: Any) -> dict[str, float]:
    """What a validation returned, where tensors and NumPy's scalars are numbers, too."""
    require_instance("what validation returns", given, Mapping, "a dict of figures by name")
    require_numbers(**{f"validation figure {name}": figure for name, figure in given.items()})
    return {name: float(figure) for name, figure in given.items()}


def _label(method: Trainable) -> str:
    return f"train {method.kind}" + (f" ({method.stage})" if method.stage != "main" else "")
