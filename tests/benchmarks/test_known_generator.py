import json
from dataclasses import replace
from datetime import date
from itertools import combinations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bahe_tasks.config import Config
from bahe_tasks.core.metrics import auc
from bahe_tasks.sources.synthetic import read_oracle
from bahe_tasks.sources.synthetic.phrases import FEATURES, phrase_book
from bahe_tasks.sources.synthetic.population import DISLIKED, LOVED, first_world
from bahe_tasks.sources.synthetic.vocabulary import TOPICS
from benchmarks import known_generator
from benchmarks.kit.judged_days import JudgedDays, read_judged, synthetic
from benchmarks.kit.known_world import class_evidence, known_logits, log_evidence, shares_by_class, topics_of

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 3)


@pytest.fixture(scope="module")
def landing(tmp_path_factory):
    return synthetic(tmp_path_factory.mktemp("known"), days=3, users=60)


@pytest.fixture(scope="module")
def log(landing):
    return read_judged(JudgedDays(landing, FIRST, report_from=LAST, last=LAST), Config(home=landing))


def test_the_topic_of_every_title_and_phrase_is_known():
    items = first_world(users=500, seed=3).items
    np.testing.assert_array_equal(topics_of(items.title), items.topic)
    for feature in FEATURES:
        book = phrase_book(feature, seed=3)
        np.testing.assert_array_equal(topics_of(book.texts), np.repeat(np.arange(len(TOPICS)), book.count))


def test_a_text_of_another_log_is_not_guessed_at():
    with pytest.raises(ValueError, match="'Heat' is about no topic"):
        topics_of(["Heat"])


def test_what_is_left_of_the_true_logit_is_the_same_wherever_a_user_meets_an_item_again(landing, log):
    """Taste, eagerness, quality and, within a day, appeal: all that was drawn, and nothing of price, position, device or hour."""
    rows = log[0].rows
    of_day = {name: p for n in range(3) for name, p in read_oracle(landing, date(2024, 1, 1 + n)).items()}
    p = np.array([of_day[name] for name in rows.impression_ids])
    left = np.log(p / (1 - p)) - known_logits(rows)
    met = {}
    for user, item, day, logit in zip(rows.user_ids, rows.item_ids, rows.shown_at // 86_400_000_000, left, strict=True):
        met.setdefault((user, item, day), []).append(logit)
    again = [of for of in met.values() if len(of) > 1]
    assert len(again) > 20
    assert max(max(of) - min(of) for of in again) < 0.001  # probabilities are written to six digits


def test_evidence_sums_over_every_way_to_love_and_dislike_topics():
    scores = torch.randn(2, len(TOPICS), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ways = []
    for loved in combinations(range(len(TOPICS)), LOVED):
        for disliked in combinations([t for t in range(len(TOPICS)) if t not in loved], DISLIKED):
            classes = [0 if t in loved else 1 if t in disliked else 2 for t in range(len(TOPICS))]
            ways.append(scores[:, torch.arange(len(TOPICS)), classes].sum(1))
    torch.testing.assert_close(log_evidence(scores), torch.logsumexp(torch.stack(ways), 0))


def test_a_user_who_does_much_about_a_topic_is_taken_to_love_it():
    counts = torch.full((1, len(TOPICS)), 1.0, dtype=torch.float64)
    counts[0, 4] = 30
    evidence = class_evidence(counts, shares_by_class().done).requires_grad_()
    classes = torch.autograd.grad(log_evidence(evidence).sum(), evidence)[0][0]
    assert classes[4, 0] > 0.99
    torch.testing.assert_close(classes.sum(0), torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64))


def test_nothing_is_read_that_comes_later(landing, log):
    whole, judged = log
    past = known_generator.Past.of(whole, landing)
    cut = np.flatnonzero(judged)[judged.sum() // 2]  # where the second of two stretches starts
    later = torch.arange(len(judged)) >= cut
    of_done = torch.as_tensor(past.done_at >= whole.rows.shown_at[cut])
    changed = replace(
        past,
        labels=torch.where(later, 1 - past.labels, past.labels),
        done_topics=torch.where(of_done, (past.done_topics + 1) % len(TOPICS), past.done_topics),
    )
    before, after = (known_generator.observe(of, judged, refits=2) for of in (past, changed))
    np.testing.assert_array_equal(np.isfinite(before), judged)
    np.testing.assert_array_equal(before, after)
    more = known_generator.observe(changed, judged, refits=4)
    assert (more[later.numpy()] != before[later.numpy()]).any(), "the fourth stretch reads labels of the third"


def test_what_was_drawn_is_found_out(landing, log):
    whole, judged = log
    labels = whole.rows.labels[judged].astype(float)
    past = known_generator.Past.of(whole, landing)
    found = known_generator.observe(past, judged, refits=1)[judged]
    assert auc(labels, found) > auc(labels, known_logits(whole.rows)[judged]) + 0.1
    assert abs(found.mean() / labels.mean() - 1) < 0.1


def test_the_program_prints_what_can_be_known():
    found = CliRunner().invoke(known_generator.app, ["--small", "--json"], catch_exceptions=False)
    figures = json.loads(found.stdout)["figures"]
    assert 0.5 < figures["auc"] < figures["oracle_auc"] < 1
    assert figures["oracle_share"] == pytest.approx((figures["auc"] - 0.5) / (figures["oracle_auc"] - 0.5))
