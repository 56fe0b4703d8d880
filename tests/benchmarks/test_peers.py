"""Every peer on a small log of known structure: users and items have a click rate of their own, cat columns tell nothing."""

import dataclasses
from datetime import date

import numpy as np
import pytest

from bahe_tasks.core.metrics import auc
from bahe_tasks.core.training_rows import Histories, ImpressionRows
from benchmarks.kit.in_memory_log import InMemoryLog, part_of
from benchmarks.kit.label_times import NEVER, LabelTimes, day_of
from benchmarks.peers.catalogue import PEERS, Material
from benchmarks.peers.inputs import inputs_of, newest_first
from benchmarks.peers.means import sums_before
from benchmarks.peers.point_in_time import numbers_of
from benchmarks.peers.progressive import Scores, cached, days_of, progressive

DAYS, ROWS_A_DAY, USERS, ITEMS = 12, 300, 40, 30
DAY_US = 86_400_000_000
ALONE = [name for name, entry in PEERS.items() if not entry.reads]
RUNNING = [name for name in PEERS if name.endswith("_running")] + ["trees", "dcn_v2_numbers", "stacked"]
OF_EARLIER_DAYS = [name for name in ALONE if name in ("user_mean", "item_mean", "sum_of_means", "logistic_regression")]


def _log(labels=None):
    """Labels of users 0 to 19 and items 0 to 14 are mostly 0; a history holds a user's own clicks before the row."""
    rng = np.random.default_rng(0)
    num_rows = DAYS * ROWS_A_DAY
    user, item = rng.integers(USERS, size=num_rows), rng.integers(ITEMS, size=num_rows)
    p = 1 / (1 + np.exp(-3.0 * ((user >= USERS // 2) + (item >= ITEMS // 2) - 1.0)))
    drawn = (rng.random(num_rows) < p).astype(np.float32)
    labels = drawn if labels is None else labels
    shown_at = np.sort(rng.integers(DAY_US, size=(DAYS, ROWS_A_DAY)), axis=1) + np.arange(DAYS)[:, None] * DAY_US
    times = shown_at.ravel()
    return InMemoryLog(
        texts=[f"title {n}" for n in range(ITEMS)],
        rows=ImpressionRows(
            impression_ids=np.array([f"i{r:06}" for r in range(num_rows)], object),
            user_ids=np.array([f"u{n}" for n in user], object),
            item_ids=np.array([f"m{n}" for n in item], object),
            shown_at=times,
            as_of=times,
            labels=labels,
            title_rows=item.astype(np.int64),
            histories={"liked": _histories(user, item, labels, times)},
            cat={"kind": np.array(["a", None], object)[rng.integers(2, size=num_rows)]},
            num={"price": rng.random(num_rows)},
        ),
    )


def _log_of_late_labels():
    """A third of the labels are known at once, a third a day later, a third never."""
    log = _log()
    days_late = np.arange(len(log.rows)) % 3
    known_at = np.where(
        days_late == 2, NEVER.astype("datetime64[us]").astype(np.int64), log.rows.shown_at + days_late * DAY_US
    )
    return dataclasses.replace(
        log, label_times=LabelTimes(known_at, known_at, day_of(known_at), np.zeros(len(log.rows), bool))
    )


def _histories(user, item, labels, times):
    clicks = np.flatnonzero(labels)
    clicks = clicks[np.argsort(user[clicks], kind="stable")]
    bounds = np.searchsorted(user[clicks], np.arange(USERS + 1))
    ends = [
        bounds[u] + np.searchsorted(times[clicks[bounds[u] : bounds[u + 1]]], t)
        for u, t in zip(user, times, strict=True)
    ]
    return Histories(
        behavior_rows=item[clicks].astype(np.int64),
        occurred_at=times[clicks],
        starts=bounds[user].astype(np.int64),
        ends=np.array(ends, np.int64),
    )


def _material(log):
    sentences = np.random.default_rng(1).standard_normal((ITEMS, 8)).astype(np.float16)
    return Material.of(log, numbers=numbers_of(log)[0], sentences=sentences)


def _run(log, name, *, seed=1, days=None):
    material, days = _material(log), days or days_of(log)
    read = {}
    for other in PEERS[name].reads:
        read[other] = progressive(PEERS[other].build(material, seed, {}), days, num_rows=len(log.rows)).probabilities
    return progressive(PEERS[name].build(material, seed, read), days, num_rows=len(log.rows)).probabilities


def _of_day(number):
    return slice(number * ROWS_A_DAY, (number + 1) * ROWS_A_DAY)


def _places(number):
    return np.arange(len(_log().rows))[_of_day(number)]


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_finds_the_users_and_items_that_click(name):
    log = _log()
    judged = slice(DAYS // 2 * ROWS_A_DAY, None)
    scores = _run(log, name)
    assert np.isnan(scores[_of_day(0)]).all()
    assert ((scores[judged] >= 0) & (scores[judged] <= 1)).all()
    # Either of user and item tells 0.72 of 1.
    assert auc(log.rows.labels[judged], scores[judged]) > 0.6


@pytest.mark.parametrize("name", OF_EARLIER_DAYS)
def test_labels_of_a_day_and_later_change_no_score_of_it_without_histories(name):
    log = _log()
    labels = log.rows.labels.copy()
    labels[_of_day(3).start :] = 1 - labels[_of_day(3).start :]
    # Histories stay as they were: they are what the pipeline gives, and end before the impression by themselves.
    changed = InMemoryLog(dataclasses.replace(log.rows, labels=labels), log.texts)
    np.testing.assert_array_equal(_run(log, name)[: _of_day(4).start], _run(changed, name)[: _of_day(4).start])
    assert (_run(log, name)[_of_day(4)] != _run(changed, name)[_of_day(4)]).any()


@pytest.mark.parametrize("name", ["user_mean_running", "item_mean_running", "sum_of_means_running", "trees"])
def test_as_of_the_start_of_the_day_no_number_sees_a_label_of_it(name):
    labels = _log().rows.labels.copy()
    labels[_of_day(3).start :] = 1 - labels[_of_day(3).start :]
    log = dataclasses.replace(_log(), numbers_as_of="day_start")
    changed = dataclasses.replace(log, rows=dataclasses.replace(log.rows, labels=labels))
    days = days_of(log)[:4]
    end = _of_day(4).start
    np.testing.assert_array_equal(_run(log, name, days=days)[:end], _run(changed, name, days=days)[:end])
    running = [dataclasses.replace(of, numbers_as_of="impression") for of in (log, changed)]
    assert (_run(running[0], name, days=days)[:end] != _run(running[1], name, days=days)[:end]).any()


@pytest.mark.parametrize("name", PEERS)
def test_no_peer_sees_a_label_at_or_after_the_time_it_scores(name):
    log = _log()
    r = _of_day(5).start + 100
    labels = log.rows.labels.copy()
    labels[r:] = 1 - labels[r:]
    changed = _log(labels)
    days = days_of(log)[:6]
    before, after = _run(log, name, days=days)[: r + 1], _run(changed, name, days=days)[: r + 1]
    np.testing.assert_allclose(before, after, rtol=1e-4)


@pytest.mark.parametrize("name", PEERS)
def test_no_peer_reads_a_label_before_it_is_known(name):
    log = _log_of_late_labels()
    r = _of_day(5).start
    unknown = log.known_at >= log.rows.shown_at[r]
    assert unknown[:r].any()
    labels = np.where(unknown, 1 - log.rows.labels, log.rows.labels)
    changed = dataclasses.replace(log, rows=dataclasses.replace(log.rows, labels=labels))
    before, after = (_run(of, name, days=days_of(of)[:6]) for of in (log, changed))
    np.testing.assert_array_equal(before[: r + 1], after[: r + 1])
    assert (before[r + 1 : _of_day(5).stop] != after[r + 1 : _of_day(5).stop]).any() == (name in RUNNING)


def test_days_learn_from_what_is_known_before_the_next_day_that_has_rows():
    log = _log_of_late_labels()
    quiet = log.part(slice(0, _of_day(5).start))
    kept = np.r_[np.arange(_of_day(3).start), np.arange(_of_day(4).start, _of_day(5).start)]
    learned = [day.learned for day in days_of(quiet)]
    assert (
        sorted(np.concatenate(learned).tolist())
        == np.flatnonzero(quiet.train_days < np.datetime64("1970-01-06")).tolist()
    )
    for number, rows in enumerate(learned):
        assert (quiet.train_days[rows] == np.datetime64("1970-01-01") + number).all()
    without = InMemoryLog(
        part_of(log.rows, kept), log.texts, label_times=LabelTimes(*(of[kept] for of in vars(log.label_times).values()))
    )
    found = {str(day.day): day.learned for day in days_of(without)}
    assert set(without.train_days[found["1970-01-03"]].astype(str)) == {"1970-01-03", "1970-01-04"}
    assert set(without.train_days[found["1970-01-05"]].astype(str)) == {"1970-01-05"}


@pytest.mark.parametrize("name", ALONE)
def test_a_peer_scores_the_same_twice_and_the_same_seed_is_the_same_peer(name):
    log = _log()
    first, second = (PEERS[name].build(_material(log), 1, {}) for _ in range(2))
    first.learn(_places(0))
    once, twice = first.score(_of_day(1)), first.score(_of_day(1))
    np.testing.assert_array_equal(once, twice)
    runs = [_run(log, name, days=days_of(log)[:3]) for _ in range(2)]
    np.testing.assert_array_equal(*runs)
    assert second is not first


@pytest.mark.parametrize("name", ALONE)
def test_a_score_does_not_depend_on_the_rows_beside_it(name):
    log = _log()
    lengths = log.rows.histories["liked"].ends - log.rows.histories["liked"].starts
    peer = PEERS[name].build(_material(log), 1, {})
    for day in range(3):
        peer.learn(_places(day))
    together = peer.score(_of_day(3))
    shortest = [_of_day(3).start + r for r in np.argsort(lengths[_of_day(3)], kind="stable")[:5]]
    for r in shortest:  # alone no other history is longer
        np.testing.assert_allclose(peer.score(slice(r, r + 1)), together[r - _of_day(3).start], rtol=1e-5)


def test_sums_are_over_strictly_earlier_rows_of_the_same_id():
    ids, values = np.array(["a", "b", "a", "a", "a"]), np.array([1.0, 1.0, 0.0, 1.0, 1.0])
    sums = sums_before(ids, values, np.array([1, 1, 2, 2, 3]))
    assert sums.totals.tolist() == [0, 0, 1, 1, 2]
    assert sums.counts.tolist() == [0, 0, 1, 1, 3]
    newest = sums_before(ids, values, np.array([1, 1, 2, 2, 3]), newest=2)
    assert newest.totals.tolist() == [0, 0, 1, 1, 1]
    assert newest.counts.tolist() == [0, 0, 1, 1, 2]


def test_sequences_are_newest_first_and_padded_right():
    values = np.array([5, 6, 7, 8])
    padded = newest_first(values, np.array([0, 1, 4]), np.array([3, 2, 4]), 2)
    assert padded.tolist() == [[7, 6], [6, 0], [0, 0]]


def test_inputs_hold_ids_lengths_and_numbers():
    log = _log()
    inputs = inputs_of(log, max_behaviors=3, numbers=np.ones((len(log.rows), 2), np.float32))
    assert set(inputs.ids) == {"user", "item", "cat_kind", "num_liked"}
    assert inputs.numbers.shape == (len(log.rows), 3)
    assert inputs.histories["liked"].shape == (len(log.rows), 3)
    assert all(inputs.ids[name].max() < inputs.vocabulary[name] for name in inputs.ids)


def test_days_cover_the_log():
    days = days_of(_log())
    assert [day.rows for day in days] == [_of_day(n) for n in range(DAYS)]
    assert days[1].day == date(1970, 1, 2)


def test_scores_are_kept(tmp_path):
    kept = Scores(np.array([np.nan, 0.25]), 3.0)
    cached(tmp_path / "x" / "a.npz", lambda: kept)
    found = cached(tmp_path / "x" / "a.npz", lambda: pytest.fail("computed again"))
    np.testing.assert_array_equal(found.probabilities, kept.probabilities)
    assert found.cpu_s == 3.0
