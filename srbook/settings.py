"""The settings of a training run, which presets hold."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(BaseModel):
    """Everything that decides what a run computes, and how often it reports.

    Together with the data and the fresh weights, `seed` fixes the result. Batch i and its noise depend on the seed and
    on i alone, so a run that was stopped and resumed ends with the same weights as one that was not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: PositiveInt = Field(1000, description="optimizer steps of the whole run")
    batch_size: PositiveInt = Field(16, description="patches in a batch, per process")
    patch_size: PositiveInt = Field(96, description="side of the high-resolution patches, in pixels")
    learning_rate: Rate = Field(2e-4, description="AdamW's highest step size")
    learning_rates: dict[str, Rate] = Field(
        {}, description="highest step sizes of parts of the method that have their own, such as {encoder: 1.0e-5}"
    )
    warmup: NonNegativeInt = Field(0, description="steps over which the learning rates rise from zero")
    schedule: Literal["constant", "cosine", "multistep"] = Field(
        "cosine", description="what the rates do after the warm-up: stay, fall along half a cosine, or fall in jumps"
    )
    floor: float = Field(0.0, ge=0, le=1, description="share of the highest rates at which the cosine ends")
    milestones: tuple[PositiveInt, ...] = Field((), description="steps at which multistep multiplies the rates")
    factor: Rate = Field(0.5, description="by what multistep multiplies the rates")
    betas: tuple[Share, Share] = Field((0.9, 0.99), description="AdamW's averaging factors")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="AdamW's decoupled weight decay")
    clip_norm: PositiveFloat = Field(1.0, description="gradients are scaled down to this norm; .inf turns it off")
    clip_value: PositiveFloat = Field(
        math.inf, description="each element of a gradient is cut to this magnitude, before the norm is taken"
    )
    ema_decay: Share = Field(0.999, description="decay of the averaged weights; 0 follows the weights")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bfloat16 where the processor or GPU has instructions for it"
    )
    channels_last: bool = Field(True, description="keep channels innermost in memory; faster for most networks")
    seed: NonNegativeInt = Field(0, description="fixes the batches and the noise")
    log_every: PositiveInt = Field(50, description="steps between log records")
    save_every: PositiveInt = Field(1000, description="most steps between checkpoints")
    save_minutes: PositiveFloat = Field(10.0, description="most minutes between checkpoints")
    validate_every: PositiveInt = Field(1000, description="steps between validations")

    @model_validator(mode="after")
    def _schedule_has_its_settings(self) -> "TrainingConfig":
        if self.floor and self.schedule != "cosine":
            raise ValueError(f"floor belongs to schedule cosine, not to {self.schedule}")
        if bool(self.milestones) != (self.schedule == "multistep"):
            raise ValueError(f"schedule multistep needs milestones and no other has them, got {self.schedule}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {', '.join(map(str, self.milestones))}")
        if self.warmup > self.steps:
            raise ValueError(f"warmup must be at most steps, got {self.warmup} of {self.steps}")
        return self

    def must_match(self, kept: Mapping[str, Any]) -> list[str]:
        """Names of the settings that differ from those of a checkpoint and that a resumed run may not change.

        `steps` may, to prolong a run; the cosine then stretches over the new length, and so does a warm-up that filled
        the whole run. Settings that a checkpoint of an older version does not know had their defaults.
        """
        free = {"log_every", "save_every", "save_minutes", "validate_every", "steps"}
        defaults = type(self)().model_dump(mode="json")
        if kept.get("warmup") and kept["warmup"] == kept.get("steps"):
            free.add("warmup")
        own = self.model_dump(mode="json")
        return [name for name in own if name not in free and own[name] != kept.get(name, defaults[name])]
