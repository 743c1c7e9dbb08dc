"""SinSR: one step that has learned where the deterministic walk of a diffusion ends."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from srbook.frozen import Frozen
from srbook.methods.base import Method, Stage
from srbook.methods.diffusion import Condition, Diffusion
from srbook.methods.files import build_method, read_method
from srbook.paths import broadcast
from srbook.random import normal
from srbook.samplers import SampleResult, ancestral
from srbook.spaces import Space

DIRECT = ("x0", "residual")  # kinds of prediction that are an image wherever they are made


class SinSR(Method):
    """Super-resolution in one step, distilled from a diffusion (Wang et al. 2024).

    Without noise in its steps (eta = 0) the teacher's walk is a map from x_T to an image, and the student learns this
    map. It also learns the way from a truth back to an x_T, and that its step from there gives the truth. The student
    is a diffusion like its teacher, and begins with its weights (a preset's `starts_from`).

    Any `Diffusion` can be distilled. One whose network predicts noise or has two heads, such as ECDP, has no way back
    at the end of its path: it learns from its teacher alone, with `inverse` and `truth` at 0.

    The released program (github.com/wyf0912/SinSR, commit f173549) learns the way back at the time and with the input
    scale of two different steps; see `inverse_time` and `inverse_scale`.

    Args:
        student: the diffusion that is trained: {"method": its kind, "arguments": its arguments}.
        teacher: whose walk is learned: a file or name of a trained method of the student's kind. It is needed in
            training only.
        teacher_steps: of the teacher's walk; None takes all times of its path. A path in continuous time needs a
            number.
        distill: weight of the squared distance between the student's step and the end of the teacher's walk.
        inverse: weight of the squared error of x_T, which the student makes of the teacher's image.
        truth: weight of the squared error of the step from the x_T that the student makes of the truth.
        inverse_time: what the network is told on the way back: "first", the time of the last step of a walk, as in the
            program, or "zero", which no step of a walk uses.
        inverse_scale: by which time's `spread` its input is divided there: that of the "end", as in the program, or of
            its "own" time.
    """

    kind = "sinsr"
    stages = (Stage("distillation", trains=("student",), loss="distillation_loss", upscale="jump_image", samples=True),)
    starts_as = "student"
    only_in_training = ("teacher",)

    def __init__(
        self,
        *,
        scale: int,
        student: dict[str, Any],
        teacher: str | None = None,
        teacher_steps: int | None = None,
        distill: float = 1.0,
        inverse: float = 1.0,
        truth: float = 1.0,
        inverse_time: Literal["first", "zero"] = "first",
        inverse_scale: Literal["end", "own"] = "end",
    ):
        super().__init__(scale)
        for name, weight in (("distill", distill), ("inverse", inverse), ("truth", truth)):
            if weight < 0:
                raise ValueError(f"{name} must be a weight of at least 0, got {weight}")
        if student.keys() != {"method", "arguments"}:
            raise ValueError(f"a student is described by its method and arguments, got {student!r}")
        self.student = build_method(student["method"], {**student["arguments"], "scale": scale})
        if not isinstance(self.student, Diffusion):
            raise ValueError(f"the student must be a diffusion, got {student['method']}")
        if self.student.predicts not in DIRECT and (inverse or truth):
            raise ValueError(f"{self.student.kind} has no way back to x_T: set inverse and truth to 0")
        if truth and not inverse:
            raise ValueError(
                "the term of the truth needs the way back, which the inverse term trains; give both a weight"
            )
        if teacher_steps is None and self.student.path.end == 1:
            raise ValueError(f"the path of {self.student.kind} has no whole steps: say how many teacher_steps to take")
        self.student.sampling_times(teacher_steps)  # refuses an impossible number now
        self.teacher = frozen_teacher(teacher, self.student)

    @property
    def space(self) -> Space:
        """That of the student, where it jumps."""
        return self.student.space

    @property
    def unit(self) -> int:
        """Of tiles, as for the student."""
        return self.student.unit

    def distillation_loss(self, hr: Tensor, lr: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """The loss and its three terms: "distill", "inverse", and "truth"; those without a weight are left out.

        Implements :eq:`eq-sinsr-distill`, :eq:`eq-sinsr-inverse`, and :eq:`eq-sinsr-truth`.
        """
        condition = self.student.condition(lr)
        noise = normal(condition.anchor.shape, condition.anchor, generator)
        start = self.student.path.start(condition.anchor, noise)
        image, x0 = self.walk(start, lr), self.student.clean(hr, condition)
        jumped, returned = self.jump(start, condition), None
        terms = {"distill": mse_loss(jumped, image)}
        if self.inverse:
            terms["inverse"] = mse_loss(self.back(image, condition), start)
        if self.truth:
            with torch.no_grad():
                of_truth = self.back(x0, condition)
            returned = self.jump(of_truth, condition)
            terms["truth"] = mse_loss(returned, x0)
        terms |= self.further_terms(hr, x0, jumped, returned)
        return {"loss": sum(getattr(self, name) * term for name, term in terms.items()), **terms}

    def further_terms(self, hr: Tensor, x0: Tensor, jumped: Tensor, returned: Tensor | None) -> dict[str, Tensor]:
        """What else a student's step is judged by: nothing here, see `srbook.methods.HFDiff`.

        Args:
            hr: the truth.
            x0: in the student's space.
            jumped: the step from noise around the anchor.
            returned: the step from the x_T made of the truth; None without that term.
        """
        return {}

    def jump(self, x_end: Tensor, condition: Condition, *, clip: bool | None = False) -> Tensor:
        """The student's x_0 for states at the end of the path, in one evaluation."""
        return self.student.denoise(x_end, self._times(x_end, self.student.path.end), condition, clip=clip)

    def back(self, x0: Tensor, condition: Condition) -> Tensor:
        """The state at the end of the path that the student makes of a clean one."""
        t = self._times(x0, 1.0 if self.inverse_time == "first" else 0.0)
        if self.inverse_scale == "end":  # `denoise` divides by the spread of its own time
            end = self._times(x0, self.student.path.end)
            x0 = x0 * broadcast(self.student.spread(t) / self.student.spread(end), x0)
        return self.student.denoise(x0, t, condition, clip=False)

    @torch.no_grad()
    def walk(self, x_end: Tensor, lr: Tensor) -> Tensor:
        """Where the teacher's walk without fresh noise ends. Implements :eq:`eq-sinsr-map`."""
        if self.teacher is None:
            raise FileNotFoundError(
                f"training needs the teacher, and {self.arguments['teacher']!r} is not on this machine or has changed"
            )
        teacher: Diffusion = self.teacher.module
        condition = teacher.condition(lr)
        denoise = partial(teacher.denoise, condition=condition)
        times = teacher.sampling_times(self.teacher_steps)
        return ancestral(teacher.path, denoise, x_end, condition.anchor, times, eta=0.0).image

    def jump_image(
        self, lr: Tensor, *, steps: int | None, generator: torch.Generator | None, progress: bool
    ) -> SampleResult:
        """`upscale`: a jump from noise around the anchor."""
        if steps not in (None, 1):
            raise ValueError(f"{self.kind} upscales in one step, got steps={steps}; leave steps out")

        def sample(condition: Condition, noise: Tensor) -> SampleResult:
            start = self.student.path.start(condition.anchor, noise)
            return SampleResult(self.jump(start, condition, clip=None), nfe=1)

        return self.student.decoded(lr, generator, sample)

    def _times(self, x: Tensor, t: float) -> Tensor:
        return torch.full((len(x),), t, dtype=torch.float64, device=x.device)


def frozen_teacher(file_or_name: str | None, student: Diffusion) -> Frozen | None:
    """The teacher, or None where it is not on this machine; one that does not fit the student is a ValueError."""
    if file_or_name is None:
        return None
    try:
        teacher = read_method(file_or_name)
    except FileNotFoundError:
        return None
    for what, of in (
        ("kind", lambda method: method.kind),
        ("scale", lambda method: method.scale),
        ("channels of x", lambda method: method.space.channels),
        ("end of the path", lambda method: method.path.end),
    ):
        if of(teacher) != of(student):
            raise ValueError(
                f"teacher and student must walk on one path: the {what} is {of(teacher)} and {of(student)}"
            )
    return Frozen(teacher)
