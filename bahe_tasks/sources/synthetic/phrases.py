"""Texts of the synthetic log: every behavior phrase there is, and titles made as items appear."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from bahe_tasks.sources.synthetic.vocabulary import ADJECTIVES, BEHAVIOR_FRAMES, TITLE_FRAMES, TOPICS, Topic

FEATURES: tuple[str, ...] = tuple(BEHAVIOR_FRAMES)
"""The text features, in the order of their numbers."""


@dataclass(frozen=True)
class PhraseBook:
    """All phrases of one text feature, topic after topic; topic k owns texts[first[k] : first[k] + count[k]]."""

    texts: np.ndarray
    first: np.ndarray
    count: np.ndarray

    def draw(self, topics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return one phrase for each topic number, a few of them far more often than the rest."""
        skewed = rng.random(len(topics)) ** 3
        return self.texts[self.first[topics] + (skewed * self.count[topics]).astype(np.int64)]


def phrase_book(feature: str, *, seed: int) -> PhraseBook:
    """Return the phrases of a text feature; which of them are frequent follows from the seed."""
    rng = np.random.default_rng([seed, FEATURES.index(feature), 101])
    by_topic = []
    for topic in TOPICS:
        phrases = sorted({text for frame in BEHAVIOR_FRAMES[feature] for text in _filled(frame, topic)})
        by_topic.append(rng.permutation(np.array(phrases, dtype=object)))
    count = np.array([len(phrases) for phrases in by_topic])
    return PhraseBook(texts=np.concatenate(by_topic), first=np.cumsum(count) - count, count=count)


def titles(topics: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return one title for each topic number; two items seldom share one."""
    picks = rng.integers(0, 1 << 30, size=(len(topics), 6)).tolist()
    return np.array([_title(TOPICS[k], pick) for k, pick in zip(topics.tolist(), picks, strict=True)], dtype=object)


def _title(topic: Topic, pick: list[int]) -> str:
    thing = pick[1] % len(topic.things)
    other = (thing + 1 + pick[2] % (len(topic.things) - 1)) % len(topic.things)
    return TITLE_FRAMES[pick[0] % len(TITLE_FRAMES)].format(
        thing=topic.things[thing],
        other=topic.things[other],
        doing=topic.doings[pick[3] % len(topic.doings)],
        place=topic.places[pick[4] % len(topic.places)],
        adjective=ADJECTIVES[pick[5] % len(ADJECTIVES)],
    )


def _filled(frame: str, topic: Topic) -> list[str]:
    """Return the frame with every combination of the words it asks for."""
    choices = {"thing": topic.things, "doing": topic.doings, "place": topic.places, "adjective": ADJECTIVES}
    asked = [name for name in choices if f"{{{name}}}" in frame]
    return [
        frame.format(**dict(zip(asked, words, strict=True))) for words in product(*(choices[name] for name in asked))
    ]
