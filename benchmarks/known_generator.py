"""AUC on the synthetic log of an observer who knows how the log is made, all but what was drawn.

    python -m benchmarks.known_generator [--refits 24] [--json] [--small]

`oracle_auc` is that of the very probabilities clicks were drawn from, which hold every user's taste; a model has to infer that from what users do and
click. This observer knows the topic of every text, the click model and its coefficients, from which distributions tastes, eagerness,
quality and appeal come, and every click the moment it happens: no click model knows as much. It is no ceiling: what little the number of an item's impressions says of
its quality, and the number of behaviors of how much a topic is loved, it leaves aside. It finds the most probable
appeal, quality, eagerness and own part of each taste, summed over which topics a user loves and dislikes, anew `--refits` times a day;
what follows a refit is predicted, not read. The days are those of `benchmarks.quality` without a landing folder.

Figures: `auc`, `oracle_auc`, `oracle_share` = (AUC - ½) / (oracle_auc - ½), `calibration` (predicted / clicked), `rows`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.nn import functional

from bahe_tasks.config import Config
from bahe_tasks.core.metrics import auc
from bahe_tasks.sources.synthetic.population import APPEAL_KEPT, APPEAL_STD, OWN_STD, TASTES
from bahe_tasks.sources.synthetic.vocabulary import TOPICS
from benchmarks.kit.document import Document
from benchmarks.kit.in_memory_log import InMemoryLog
from benchmarks.kit.judged_days import Size, judged_days, oracle_figures, read_judged
from benchmarks.kit.known_world import Shares, class_evidence, known_logits, log_evidence, shares_by_class, topics_of
from benchmarks.kit.label_times import day_of
from benchmarks.kit.landed_log import landed_frame
from benchmarks.kit.settings import AsJson

SMALL = Size(days=3, users=60)


@dataclass(frozen=True)
class Past:
    """The whole log by numbers; an observer reads what lies before a time."""

    users: torch.Tensor  # (R,) int64, of impressions
    items: torch.Tensor
    topics: torch.Tensor
    days: torch.Tensor
    known: torch.Tensor  # (R,) float32, logits without what was drawn
    labels: torch.Tensor  # (R,) float32
    shown_at: np.ndarray  # (R,) int64, ascending
    done_users: torch.Tensor  # (B,) int64, of behaviors
    done_topics: torch.Tensor
    done_at: np.ndarray  # (B,) int64, ascending
    size: tuple[int, int, int]
    """Users, items, days."""

    @classmethod
    def of(cls, log: InMemoryLog, landing: Path) -> Past:
        """Return the log in numbers. Visits of a clicked item, whose texts are titles, tell nothing that its click did not."""
        rows = log.rows
        users, of_user = np.unique(rows.user_ids, return_inverse=True)
        items, of_item = np.unique(rows.item_ids, return_inverse=True)
        _, of_day = np.unique(day_of(rows.shown_at), return_inverse=True)
        events = landed_frame(landing, "behavior_events", late_days=0)
        events = events[events["item_id"].isna() & events["user_id"].isin(users)].sort_values("occurred_at")
        texts, of_text = np.unique(events["text"].to_numpy(str), return_inverse=True)
        return cls(
            users=torch.as_tensor(of_user),
            items=torch.as_tensor(of_item),
            topics=torch.as_tensor(topics_of(log.texts)[rows.title_rows]),
            days=torch.as_tensor(of_day),
            known=torch.as_tensor(known_logits(rows), dtype=torch.float32),
            labels=torch.as_tensor(rows.labels, dtype=torch.float32),
            shown_at=rows.shown_at,
            done_users=torch.as_tensor(np.searchsorted(users, events["user_id"].to_numpy(object))),
            done_topics=torch.as_tensor(topics_of(texts)[of_text]),
            done_at=events["occurred_at"].to_numpy(np.int64),
            size=(len(users), len(items), int(of_day.max()) + 1),
        )


class Observer:
    """What is most probable of what was drawn; each fit starts from the one before."""

    def __init__(self, past: Past, shares: Shares) -> None:
        users, items, days = past.size
        self.past, self.shares = past, shares
        self.appeal = torch.zeros(days, len(TOPICS), requires_grad=True)
        self.quality = torch.zeros(items, requires_grad=True)
        self.eagerness = torch.zeros(users, requires_grad=True)
        self.own_taste = torch.zeros(users, len(TOPICS), requires_grad=True)
        self.tastes = torch.tensor(TASTES)

    @property
    def drawn(self) -> list[torch.Tensor]:
        """What is fitted."""
        return [self.appeal, self.quality, self.eagerness, self.own_taste]

    def fit(self, before: int) -> torch.Tensor:
        """Read all that happened before a time (microseconds since 1970); return the probability of each class, (users, topics, classes)."""
        past = self.past
        shown, done = np.searchsorted(past.shown_at, before), np.searchsorted(past.done_at, before)
        of_done = self._counts(past.done_users[:done], past.done_topics[:done])
        of_shown = self._counts(past.users[:shown], past.topics[:shown])
        evidence = class_evidence(of_done, self.shares.done) + class_evidence(of_shown, self.shares.shown)
        evidence = (evidence - evidence.amax(-1, keepdim=True)).float().flatten(0, 1)
        cell = past.users[:shown] * len(TOPICS) + past.topics[:shown]
        signs = 2 * past.labels[:shown, None] - 1

        def scores() -> torch.Tensor:
            of_clicks = functional.logsigmoid(signs * self._logits(slice(shown)))
            return evidence.index_add(0, cell, of_clicks).unflatten(0, (-1, len(TOPICS)))

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            own = sum(drawn.square().sum() for drawn in self.drawn[1:]) / OWN_STD**2
            drift = (self.appeal[1:] - APPEAL_KEPT * self.appeal[:-1]).square().sum() / (1 - APPEAL_KEPT**2)
            total = (own + (self.appeal[0].square().sum() + drift) / APPEAL_STD**2) / 2 - log_evidence(scores()).sum()
            total.backward()
            return total

        optimiser = torch.optim.LBFGS(self.drawn, max_iter=60, line_search_fn="strong_wolfe")
        optimiser.step(loss)
        found = scores().detach().requires_grad_()
        return torch.autograd.grad(log_evidence(found).sum(), found)[0]

    @torch.no_grad()
    def probabilities(self, rows: slice, classes: torch.Tensor) -> np.ndarray:
        """Return the click probability of impressions, (rows,), given the probability of each class."""
        likely = classes[self.past.users[rows], self.past.topics[rows]]
        return (likely * torch.sigmoid(self._logits(rows))).sum(1).numpy()

    def _logits(self, rows: slice) -> torch.Tensor:
        """Return the logits of impressions for each class their topic may have, (rows, classes)."""
        past = self.past
        users, topics = past.users[rows], past.topics[rows]
        drawn = self.appeal[past.days[rows], topics] + self.quality[past.items[rows]] + self.eagerness[users]
        return (past.known[rows] + drawn + self.own_taste[users, topics])[:, None] + self.tastes

    def _counts(self, users: torch.Tensor, topics: torch.Tensor) -> torch.Tensor:
        counts = torch.zeros(self.past.size[0], len(TOPICS), dtype=torch.float64)
        return counts.index_put_((users, topics), torch.ones(len(users), dtype=torch.float64), accumulate=True)


def observe(past: Past, judged: np.ndarray, *, refits: int) -> np.ndarray:
    """Return the click probability of each judged impression, (R,), NaN elsewhere: of as many stretches a day, each judged by what was before it."""
    observer, found = Observer(past, shares_by_class()), np.full(len(judged), np.nan)
    for day in np.unique(past.days[judged]):
        rows = np.flatnonzero(past.days.numpy() == day)
        for part in np.array_split(rows, min(refits, len(rows))):
            stretch = slice(part[0], part[-1] + 1)
            found[stretch] = observer.probabilities(stretch, observer.fit(int(past.shown_at[part[0]])))
    return np.where(judged, found, np.nan)


def main(
    refits: Annotated[int, typer.Option(min=1, help="How often a day the observer reads what happened.")] = 24,
    as_json: AsJson = False,
    small: Annotated[bool, typer.Option(help="Few days and users, two refits a day.")] = False,
) -> None:
    """Judge what can be known of the synthetic log."""
    with tempfile.TemporaryDirectory(prefix="bahe-known-") as temporary:
        scratch, size = Path(temporary), SMALL if small else None
        any_day = datetime(2024, 1, 1)  # the synthetic log has days of its own
        days = judged_days(None, first=any_day, report_from=any_day, last=any_day, small=size, scratch=scratch)
        log, judged = read_judged(days, Config(home=scratch))
        found = observe(Past.of(log, days.landing), judged, refits=2 if small else refits)[judged]
        labels = log.rows.labels[judged].astype(np.float64)
        reached = auc(labels, found)
        document = Document("known_generator")
        document.figures |= {"auc": reached, **oracle_figures(days, reached)}
    document.figures |= {"calibration": float(found.mean() / labels.mean()), "rows": float(judged.sum())}
    document.show(as_json=as_json)


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    torch.set_num_threads(1)  # of this process, not of one that calls `main`
    app()
