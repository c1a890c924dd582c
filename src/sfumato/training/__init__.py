"""Reward tuning: one `Trainer`, whose loop is a generator of records, and objectives that are plain values given to it.

`draft` (DRaFT-K and DRaFT+), `draft_lv`, `align_prop` and `refl` back-propagate the reward, `ddpo` and `flow_grpo` are
policy gradients, `adjoint` (Adjoint Matching) aims at the tilted law itself, `dpo` and `sft` learn from pairs of
images. `regularizers` hold a model near its base, `diversity` holds its images apart, `data_term` learns from images
beside any objective. `checkpoints` has exact resume, `monitor` the look at held-out prompts while training.
"""

from sfumato.training.adjoint import AdjointMatching
from sfumato.training.align_prop import AlignProp
from sfumato.training.checkpoints import CheckpointError
from sfumato.training.data_term import DataTerm
from sfumato.training.ddpo import DDPO
from sfumato.training.dpo import DiffusionDPO
from sfumato.training.draft import Draft
from sfumato.training.draft_lv import DraftLV
from sfumato.training.flow_grpo import FlowGRPO
from sfumato.training.monitor import Monitor
from sfumato.training.objective import Batch, Objective, Outcome
from sfumato.training.refl import ReFL
from sfumato.training.sft import SFT
from sfumato.training.trainer import Trainer, TrainingError

__all__ = [
    "DDPO",
    "SFT",
    "AdjointMatching",
    "AlignProp",
    "Batch",
    "CheckpointError",
    "DataTerm",
    "DiffusionDPO",
    "Draft",
    "DraftLV",
    "FlowGRPO",
    "Monitor",
    "Objective",
    "Outcome",
    "ReFL",
    "Trainer",
    "TrainingError",
]
