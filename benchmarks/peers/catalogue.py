"""Every peer by name: how it is built and what was tuned. Later ones may read the progressive scores of earlier ones.

Everything was tuned on MovieTweetings days before 2013-09-01 alone; docs/quality.md has the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.kit.in_memory_log import InMemoryLog
from benchmarks.peers.inputs import Inputs, inputs_of
from benchmarks.peers.linear import LinearPeer
from benchmarks.peers.means import MeansPeer, Of, logit
from benchmarks.peers.networks import Architecture, NetworkPeer, NetworkSettings
from benchmarks.peers.progressive import Peer
from benchmarks.peers.trees import TreesPeer, TreesSettings

TREES = "trees"
STACKED_ON = ("logistic_regression", "deepfm", "dcn_v2", "din", "dcn_v2_numbers", "sentence_mlp")
MAX_BEHAVIORS = 20
"""Newest behaviors of each text feature that a network reads."""
NETWORKS_TUNED = "108 runs over all networks: replay, optimiser, rates, batch, dropout, widths, decay, lengths"


@dataclass(frozen=True)
class Material:
    """What peers are built from."""

    log: InMemoryLog
    inputs: Inputs
    numbers: np.ndarray  # (R, K) float32, point in time, NaN = absent
    sentences: np.ndarray  # (M, D) embeddings of the log's texts by the whole frozen LLM

    @classmethod
    def of(cls, log: InMemoryLog, *, numbers: np.ndarray, sentences: np.ndarray) -> Material:
        """Prepare what several peers read."""
        return cls(log, inputs_of(log, max_behaviors=MAX_BEHAVIORS, numbers=numbers), numbers, sentences)


Build = Callable[[Material, int, Mapping[str, np.ndarray]], Peer]
"""Material, seed and progressive click probabilities (R,) of the peers it `reads`, same seed → a new peer."""


@dataclass(frozen=True)
class Entry:
    """A peer of the comparison."""

    build: Build
    effort: str
    seeded: bool = True
    reads: tuple[str, ...] = ()


def _means(of: Of, running: bool, material: Material, seed: int, scores: Mapping[str, np.ndarray]) -> Peer:
    return MeansPeer(material.log, of, running=running)


def _linear(material: Material, seed: int, scores: Mapping[str, np.ndarray]) -> Peer:
    return LinearPeer(material.inputs)


def _network(
    architecture: Architecture, with_numbers: bool, material: Material, seed: int, scores: Mapping[str, np.ndarray]
) -> Peer:
    settings = NetworkSettings(architecture, with_numbers=with_numbers)
    return NetworkPeer(material.inputs, settings, seed=seed, sentences=material.sentences)


def _trees(settings: TreesSettings, material: Material, seed: int, scores: Mapping[str, np.ndarray]) -> Peer:
    """Trees over the numbers and the logits of `scores`."""
    logits = [logit(probabilities)[:, None].astype(np.float32) for probabilities in scores.values()]
    numbers = np.concatenate([material.numbers, *logits], axis=1)
    return TreesPeer(numbers, material.inputs.labels, settings, seed=seed)


MEANS: dict[str, Of] = {"user_mean": "user", "item_mean": "item", "sum_of_means": "sum"}
_MEANS_TUNED = "smoothing of both means, 16 runs"
PEERS: dict[str, Entry] = {
    **{
        f"{name}{suffix}": Entry(partial(_means, of, running), _MEANS_TUNED, seeded=False)
        for suffix, running in (("", False), ("_running", True))
        for name, of in MEANS.items()
    },
    "logistic_regression": Entry(_linear, "strength of L2, 4 runs", seeded=False),
    "deepfm": Entry(partial(_network, "deepfm", False), NETWORKS_TUNED),
    "dcn_v2": Entry(partial(_network, "dcn_v2", False), NETWORKS_TUNED),
    "din": Entry(partial(_network, "din", False), NETWORKS_TUNED),
    "sentence_mlp": Entry(partial(_network, "sentence_mlp", False), NETWORKS_TUNED),
    TREES: Entry(partial(_trees, TreesSettings()), "rounds, rate, leaves, rows a leaf, column share, re-fits, 8 runs"),
    "dcn_v2_numbers": Entry(partial(_network, "dcn_v2", True), NETWORKS_TUNED),
    "stacked": Entry(partial(_trees, TreesSettings()), "none of its own: settings of the trees", reads=STACKED_ON),
}
