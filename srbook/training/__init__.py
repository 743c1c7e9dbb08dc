"""Training: settings, the trainer, turns, checkpoints, validation, learning-rate schedules, and averaged weights.

Import `Trainer` from here; it needs Accelerate (`pip install "srbook[train]"`).
"""

from srbook.accel import bf16_units, choose_precision, has_fast_bf16
from srbook.settings import TrainingConfig
from srbook.training.distributed import ProcessFailed
from srbook.training.optim import EMA, ema_decay_at
from srbook.training.schedule import learning_rate_factor
from srbook.training.trainer import Trainer, TrainingDiverged, TrainingResult
from srbook.training.validation import Validation
from srbook.turns import Trainable, Turn

__all__ = [
    "EMA",
    "ProcessFailed",
    "Trainable",
    "Trainer",
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingResult",
    "Turn",
    "Validation",
    "bf16_units",
    "choose_precision",
    "ema_decay_at",
    "has_fast_bf16",
    "learning_rate_factor",
]
