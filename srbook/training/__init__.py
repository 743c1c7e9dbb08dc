"""Training: settings, the trainer, checkpoints, the learning-rate schedule, and averaged weights.

Import `Trainer` from here; it needs Accelerate (`pip install "srbook[train]"`).
"""

from srbook.accel import bf16_units, choose_precision, has_fast_bf16
from srbook.training.config import TrainingConfig
from srbook.training.schedule import EMA, ema_decay_at, learning_rate_factor
from srbook.training.trainer import Trainer, TrainingDiverged, TrainingResult

__all__ = [
    "EMA",
    "Trainer",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingResult",
    "bf16_units",
    "choose_precision",
    "ema_decay_at",
    "has_fast_bf16",
    "learning_rate_factor",
]
