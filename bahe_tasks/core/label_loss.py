"""The loss of one or several labels.

Fixed weights: the weighted sum of the labels' mean binary cross-entropies. Uncertainty: the loss of each of the first labels
counts exp(-s), plus s / 2, with s the learned log-variance of the label (Kendall, Gal and Cipolla, CVPR 2018, equation 10).

Unusual: the rows may be a part of a batch. The means are then over the batch, so that the parts' losses add up to its.
"""

from __future__ import annotations

import torch
from torch.nn.functional import binary_cross_entropy_with_logits


def label_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    counts: torch.Tensor,
    part: float,
    weights: torch.Tensor,
    log_variances: torch.Tensor | None,
) -> torch.Tensor:
    """Logits and labels (B, L), NaN = absent label, weights (L,) and log-variances (K,) → loss, nats.

    `counts` (L,) are what a label's losses are divided by, as a rule how many rows of the whole batch have it; `part` is the
    share of its rows that these are. `log_variances` replace the `weights` of the first K labels where given. A label that
    counts none counts nothing.
    """
    losses = binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0), reduction="none")
    mean = (losses * ~labels.isnan()).sum(0) / counts.clamp(min=1)  # (L,)
    if log_variances is None:
        return (weights * mean).sum()
    first = len(log_variances)
    of_first = (torch.exp(-log_variances) * mean[:first] + part * log_variances / 2) * (counts[:first] > 0)
    return of_first.sum() + (weights[first:] * mean[first:]).sum()
