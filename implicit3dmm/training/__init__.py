"""Training: losses, the objective that joins them, the loop and its checkpoints."""

from implicit3dmm.training.config import LossWeights, RunConfig, TrainingConfig
from implicit3dmm.training.trainer import Trainer

__all__ = ["LossWeights", "RunConfig", "Trainer", "TrainingConfig"]
