"""How tests of training train the tiny models."""

from __future__ import annotations

import torch

from bahe_tasks.config import TrainingConfig

CPU = torch.device("cpu")
TRAINING = TrainingConfig(
    keep_optimizer_state=True, epochs=2, batch_size=4, head_learning_rate=0.01, deep_learning_rate=1e-3
)
