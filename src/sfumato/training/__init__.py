"""Reward tuning: one `Trainer`, whose loop is a generator of records, and objectives that are plain values given to it.

`draft` holds DRaFT-K and DRaFT+, `regularizers` the terms that hold a model near its base, `checkpoints` exact resume,
`monitor` the look at held-out prompts while training.
"""

from sfumato.training.checkpoints import CheckpointError
from sfumato.training.draft import Draft
from sfumato.training.monitor import Monitor
from sfumato.training.objective import Batch, Objective, Outcome
from sfumato.training.trainer import Trainer, TrainingError

__all__ = ["Batch", "CheckpointError", "Draft", "Monitor", "Objective", "Outcome", "Trainer", "TrainingError"]
