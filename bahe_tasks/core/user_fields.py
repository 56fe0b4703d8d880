"""Fields of pairs that stand together by user, and a linear map over all of them that does a user's share once.

A head's first map is linear, so over the fields user:F, product:F and item it is, for one user u with embedding u_F,

    Σ_F A_F u_F + (Σ_F P_F diag(u_F) + I) item

with A, P and I the weights of those fields. Sum and bracket, (width_out, H), are made once for the user; a candidate then
costs one product of that matrix with its embedding, whatever the number of text features, in place of 2 N + 1.

Unusual: sums are taken in another order than over each pair apart, so results agree within float tolerance alone. It
is for scoring; training keeps to the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn.functional import linear

_USERS_AT_ONCE = 32  # of which the matrices are held


@dataclass(frozen=True)
class OfUser:
    """A field of B pairs that a user's pairs share."""

    rows: torch.Tensor  # (U, width)
    counts: torch.Tensor  # (U,) int64, pairs of each user; B together

    def spread(self) -> torch.Tensor:
        """Return it for each pair, (B, width)."""
        return self.rows.repeat_interleave(self.counts, 0)


@dataclass(frozen=True)
class UserTimesItem:
    """The elementwise product of a user's field and the item."""

    user: OfUser
    item: torch.Tensor  # (B, width)

    def spread(self) -> torch.Tensor:
        """Return it for each pair, (B, width)."""
        return self.user.spread() * self.item


Field = torch.Tensor | OfUser | UserTimesItem


def fields_by_user(
    features: tuple[str, ...], user: torch.Tensor, counts: torch.Tensor, item: torch.Tensor
) -> dict[str, Field]:
    """User embeddings (U, N·H), pairs of each (U,) and items (B, H) → the fields of `embedding_fields`."""
    fields: dict[str, Field] = {"item": item}
    for n, feature in enumerate(features):
        of_user = OfUser(user[:, n * item.shape[1] : (n + 1) * item.shape[1]], counts)
        fields[f"user:{feature}"] = of_user
        fields[f"product:{feature}"] = UserTimesItem(of_user, item)
    return fields


def spread(field: Field) -> torch.Tensor:
    """Return the field for each pair, (B, width)."""
    return field if isinstance(field, torch.Tensor) else field.spread()


def mapped(weight: torch.Tensor, field: Field) -> torch.Tensor:
    """Return the linear map (width_out, width) of a field for each pair, (B, width_out); of a user's field done once."""
    if isinstance(field, OfUser):
        return linear(field.rows, weight).repeat_interleave(field.counts, 0)
    return linear(spread(field), weight)


def summed_maps(weights: Mapping[str, torch.Tensor], fields: Mapping[str, Field]) -> torch.Tensor:
    """Sum the linear maps (width_out, width) of the fields named in `weights`: (B, width_out)."""
    products = {name: field for name in weights if isinstance(field := fields[name], UserTimesItem)}
    if not products:
        return torch.stack([linear(spread(fields[name]), weight) for name, weight in weights.items()]).sum(0)
    first = next(iter(products.values()))
    item, counts = first.item, first.user.counts.tolist()
    of_pairs = item.new_zeros(len(item), len(next(iter(weights.values()))))
    of_users = item.new_zeros(len(counts), of_pairs.shape[1])
    of_item = item.new_zeros(of_pairs.shape[1], item.shape[1])
    for name, weight in weights.items():
        field = fields[name]
        if field is item:
            of_item += weight
        elif isinstance(field, OfUser):
            of_users += linear(field.rows, weight)
        elif isinstance(field, torch.Tensor):
            of_pairs += linear(field, weight)
    maps = torch.stack([weights[name].T for name in products])  # (F, H, width_out)
    users = torch.stack([field.user.rows for field in products.values()], 1)  # (U, F, H)
    start = 0
    for first_user in range(0, len(counts), _USERS_AT_ONCE):
        chunk = slice(first_user, first_user + _USERS_AT_ONCE)
        matrices = torch.einsum("ufh,fho->uho", users[chunk], maps) + of_item.T
        for matrix, share, count in zip(matrices, of_users[chunk], counts[chunk], strict=True):
            of_pairs[start : start + count] += item[start : start + count] @ matrix + share
            start += count
    return of_pairs
