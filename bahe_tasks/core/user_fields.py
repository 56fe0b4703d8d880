"""Fields of pairs scored from cached embeddings, and linear maps over them for less than one map a field takes.

Pairs that stand together by user share the user's part of a linear map over all fields.

A head's first map is linear, so over the fields user:F, product:F and item it is, for one user u with embedding u_F,

    Σ_F A_F u_F + (Σ_F P_F diag(u_F) + I) item

with A, P and I the weights of those fields. Sum and bracket, (width_out, E), are made once for the user; a candidate then
costs one product of that matrix with its embedding, whatever the number of text features, in place of 2 N + 1.

Pairs of another user each have their N fields of a kind stacked, so that N maps are one batched product.

Unusual: sums are taken in another order than in training, so results agree within float tolerance alone. It is for
scoring pairs; training and the scoring of impressions keep to the other way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear

from bahe_tasks.core.kept_weights import made_once
from bahe_tasks.core.text_topics import met

_PRODUCTS_AT_ONCE = 128
"""Pairs whose products of N fields stay in a core's cache until they are mapped (benchmarks.score_cost)."""


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


@dataclass(frozen=True, eq=False)
class Stack:
    """N fields of B pairs, one a text feature; each times a vector of the pair, if there is one."""

    rows: torch.Tensor  # (B, N, width)
    times: torch.Tensor | None = None  # (B, width)

    def one(self, at: int) -> torch.Tensor:
        """Return one of the fields, (B, width)."""
        return self.rows[:, at] if self.times is None else self.rows[:, at] * self.times

    def mapped(self, at: list[int], maps: torch.Tensor) -> torch.Tensor:
        """Return the maps (M, width, width_out) of the fields at M places, (M, B, width_out).

        Products are made some pairs at a time: those of all pairs would be written to memory and read again.
        """
        rows = self.rows if at == list(range(self.rows.shape[1])) else self.rows[:, at]
        if self.times is None:
            return torch.bmm(rows.transpose(0, 1), maps)
        parts = zip(rows.split(_PRODUCTS_AT_ONCE), self.times.split(_PRODUCTS_AT_ONCE), strict=True)
        return torch.cat([torch.bmm((some * times.unsqueeze(1)).transpose(0, 1), maps) for some, times in parts], 1)


@dataclass(frozen=True)
class InStack:
    """One field of a stack."""

    stack: Stack
    at: int

    def spread(self) -> torch.Tensor:
        """Return it, (B, width)."""
        return self.stack.one(self.at)


Field = torch.Tensor | OfUser | UserTimesItem | InStack


class EmbeddingParts(NamedTuple):
    """How many numbers of an item embedding, E = H + Z + W, and of each text feature's part of a user embedding, E + X, say what."""

    deep: int  # H, what the deep layers made
    topics: int  # Z, shares of topics
    text_id: int  # W, what is learned of the texts themselves
    extent: int  # X, how long a history is

    @property
    def told(self) -> int:
        """H + Z, what is made of what the texts say."""
        return self.deep + self.topics

    @property
    def of_item(self) -> int:
        """E."""
        return self.told + self.text_id

    @property
    def of_history(self) -> int:
        """E + X."""
        return self.of_item + self.extent


def fields_apart(
    features: tuple[str, ...], user: torch.Tensor, item: torch.Tensor, *, parts: EmbeddingParts
) -> dict[str, Field]:
    """User embeddings (B, N·(E + X)) and items (B, E) → the fields of `embedding_fields`, stacked."""
    users, told = user.view(len(item), len(features), parts.of_history), item[:, : parts.told]
    stacks = {"user": Stack(users[:, :, : parts.told])}
    stacks["product"] = Stack(stacks["user"].rows, times=told)
    if parts.topics:
        stacks["met"] = Stack(met(stacks["user"].rows, told.unsqueeze(1), parts.topics))
    if parts.text_id:
        stacks["text_id"] = Stack(users[:, :, parts.told : parts.of_item])
    if parts.extent:
        stacks["extent"] = Stack(users[:, :, parts.of_item :])
    fields = {f"{kind}:{name}": InStack(stack, n) for kind, stack in stacks.items() for n, name in enumerate(features)}
    return {"item": told, **_id_of_item(item, parts), **fields}


def fields_by_user(
    features: tuple[str, ...], user: torch.Tensor, counts: torch.Tensor, item: torch.Tensor, *, parts: EmbeddingParts
) -> dict[str, Field]:
    """User embeddings (U, N·(E + X)), pairs of each (U,) and items (B, E) → the fields of `embedding_fields`."""
    users, told = user.view(len(counts), len(features), parts.of_history), item[:, : parts.told]
    fields: dict[str, Field] = {"item": told, **_id_of_item(item, parts)}
    for n, name in enumerate(features):
        of_user = OfUser(users[:, n, : parts.told], counts)
        fields[f"user:{name}"] = of_user
        fields[f"product:{name}"] = UserTimesItem(of_user, told)
        if parts.text_id:
            fields[f"text_id:{name}"] = OfUser(users[:, n, parts.told : parts.of_item], counts)
        if parts.extent:
            fields[f"extent:{name}"] = OfUser(users[:, n, parts.of_item :], counts)
    if parts.topics:
        shares = users[:, :, parts.deep : parts.told].repeat_interleave(counts, 0)
        stack = Stack(met(shares, told.unsqueeze(1), parts.topics))
        fields |= {f"met:{name}": InStack(stack, n) for n, name in enumerate(features)}
    return fields


def _id_of_item(item: torch.Tensor, parts: EmbeddingParts) -> dict[str, Field]:
    return {"text_id": item[:, parts.told :]} if parts.text_id else {}


def spread(field: Field) -> torch.Tensor:
    """Return the field for each pair, (B, width)."""
    return field if isinstance(field, torch.Tensor) else field.spread()


def mapped(weight: torch.Tensor, field: Field) -> torch.Tensor:
    """Return the linear map (width_out, width) of a field for each pair, (B, width_out); of a user's field done once."""
    if isinstance(field, OfUser):
        return linear(field.rows, weight).repeat_interleave(field.counts, 0)
    return linear(spread(field), weight)


def mapped_each(
    owner: nn.Module, weights: Mapping[str, torch.Tensor], fields: Mapping[str, Field]
) -> dict[str, torch.Tensor]:
    """Return the linear map (width_out, width) of each field named in the owner's `weights` for each pair, (B, width_out)."""
    products = {name: field for name in weights if isinstance(field := fields[name], UserTimesItem)}
    found = _mapped_products(owner, weights, products)
    stacked: dict[Stack, list[str]] = {}
    for name in weights:
        if isinstance(field := fields[name], InStack):
            stacked.setdefault(field.stack, []).append(name)
    for stack, names in stacked.items():
        at = [field.at for name in names if isinstance(field := fields[name], InStack)]
        found |= zip(names, stack.mapped(at, _maps_of(owner, weights, names)), strict=True)
    return {name: found[name] if name in found else mapped(weight, fields[name]) for name, weight in weights.items()}


def _mapped_products(
    owner: nn.Module, weights: Mapping[str, torch.Tensor], products: Mapping[str, UserTimesItem]
) -> dict[str, torch.Tensor]:
    """Return the maps of the products of users with the item, (B, width_out) each: one matrix of all of them a user."""
    if not products:
        return {}
    maps = _maps_of(owner, weights, list(products))
    of_pairs = torch.cat(
        [
            item @ (users.T.unsqueeze(2) * maps.transpose(0, 1)).flatten(1)  # (E, F, width_out)
            for users, item in _users_and_items(products)
        ]
    )
    return dict(zip(products, of_pairs.split(maps.shape[2], 1), strict=True))


def _maps_of(owner: nn.Module, weights: Mapping[str, torch.Tensor], names: Sequence[str]) -> torch.Tensor:
    """Return the owner's maps (width_out, width) of N fields as (N, width, width_out)."""
    return made_once((owner, *names), lambda: torch.stack([weights[name].T for name in names]).contiguous())


def _users_and_items(products: Mapping[str, UserTimesItem]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield for each user the fields (F, E) and the items of its pairs (pairs, E) of F products with the same item."""
    first = next(iter(products.values()))
    users = torch.stack([product.user.rows for product in products.values()], 1)  # (U, F, E)
    yield from zip(users, first.item.split(first.user.counts.tolist()), strict=True)


def summed_maps(owner: nn.Module, weights: Mapping[str, torch.Tensor], fields: Mapping[str, Field]) -> torch.Tensor:
    """Sum the linear maps (width_out, width) of the fields named in the owner's `weights`: (B, width_out)."""
    products = {name: field for name in weights if isinstance(field := fields[name], UserTimesItem)}
    if not products:
        return torch.stack([linear(spread(fields[name]), weight) for name, weight in weights.items()]).sum(0)
    first = next(iter(products.values()))
    of_pairs = first.item.new_zeros(len(first.item), len(next(iter(weights.values()))))
    of_users = first.user.rows.new_zeros(len(first.user.rows), of_pairs.shape[1])
    of_item = first.item.new_zeros(of_pairs.shape[1], first.item.shape[1])
    for name, weight in weights.items():
        field = fields[name]
        if field is first.item:
            of_item += weight
        elif isinstance(field, OfUser):
            of_users += linear(field.rows, weight)
        elif not isinstance(field, UserTimesItem):
            of_pairs += linear(spread(field), weight)
    maps = _maps_of(owner, weights, list(products))
    of_matrices = [
        item @ (torch.einsum("fh,fho->ho", users, maps) + of_item.T) + share
        for share, (users, item) in zip(of_users, _users_and_items(products), strict=True)
    ]
    return of_pairs + torch.cat(of_matrices)
