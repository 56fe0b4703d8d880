"""Sequences and embeddings of a window from real tables, against the same made row by row."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from bahe_tasks.behavior_key import behavior_key
from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.core.batches import MissingEmbeddingError
from bahe_tasks.running_sums import IMPRESSION_SUMS
from bahe_tasks.stages import embedding_index
from bahe_tasks.stages.impression_rows import impression_rows
from bahe_tasks.stages.mapped_window import TableChangedError, map_window
from bahe_tasks.stages.topics_start import stored_texts
from bahe_tasks.stages.window import is_held_out, read_window, user_days
from bahe_tasks.stores.arrow_types import arrow_schema
from bahe_tasks.stores.delta_writes import append_rows, replace_partitions

D1, D2 = date(2024, 3, 1), date(2024, 3, 2)
VERSION, WIDTH = "enc-a", 4
SEQUENCES = SequencesConfig(max_behaviors_per_sequence=2)
HISTORIES = {  # user → feature → behaviors of D1, oldest first
    "u0": {"bills": ["tea", "rice", "tea"], "visits": ["shop"]},
    "u1": {"bills": ["bus"]},
    "u2": {},
}

CATS = {(D1, "u0"): [("city", "a")], (D1, "u1"): [("city", "b"), ("genre", "x")], (D2, "u1"): []}
SUMS = {  # the sums of one impression are absent, and one of another's is
    (D1, "u0"): [1.0] * len(IMPRESSION_SUMS),
    (D1, "u1"): [None, *[2.0] * (len(IMPRESSION_SUMS) - 1)],
    (D2, "u1"): [3.0] * len(IMPRESSION_SUMS),
}


def vector(text):
    return np.frombuffer(behavior_key(text)[: 4 * WIDTH].encode(), "<u2").astype(np.float16)[:WIDTH]


@pytest.fixture
def config(tmp_path, monkeypatch) -> Config:
    """Tables of two days: on D1 three users are shown one item each, on D2 one without a title."""
    monkeypatch.setattr(embedding_index, "embedding_width", lambda _checkpoint: WIDTH)
    config = Config(home=tmp_path, sequences=SEQUENCES)
    impressions = [impression(D1, user, "a lamp") for user in HISTORIES] + [impression(D2, "u1", None)]
    sequences = [
        {
            "dt": D1,
            "user_id": user,
            "feature": feature,
            "behavior_keys": [behavior_key(text) for text in texts],
            "occurred_at": [at(D1, n) for n in range(len(texts))],
            "values": [None if n % 2 else float(n) for n in range(len(texts))],
        }
        for user, features in HISTORIES.items()
        for feature, texts in features.items()
    ]
    for name, rows in (("impressions", impressions), ("user_sequences", sequences)):
        for day in (D1, D2):
            of_day = [row for row in rows if row["dt"] == day]
            replace(config, name, of_day, predicate=f"dt = '{day}'")
    store(config, D1, ["tea", "rice", "shop", "a lamp", "of nobody"])
    store(config, D2, ["bus"])
    return config


def at(day, hour):
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


def impression(day, user, title):
    ends = {feature: len(texts) for feature, texts in HISTORIES[user].items()} if day == D1 else {}
    return {
        "dt": day, "impression_id": f"{day}-{user}", "user_id": user, "item_id": "i", "shown_at": at(day, 12),
        "label": 1, "label_date": day, "is_late": False, "title_key": behavior_key(title), "sequence_ends": list(ends.items()),
        "cat": CATS.get((day, user)), "num": [], "labels": [], "sums": SUMS.get((day, user)),
    }  # fmt: skip


def replace(config, name, rows, *, predicate):
    table = pa.Table.from_pylist(rows, schema=arrow_schema(name))
    replace_partitions(config.tables_dir, name, table, predicate=predicate, partitions={})


def store(config, day, texts, version=VERSION):
    rows = [
        {"encoder_version": version, "dt": day, "behavior_key": behavior_key(text), "embedding": vector(text).tobytes()}
        for text in texts
    ]
    replace(config, "behavior_embeddings", rows, predicate=f"encoder_version = '{version}' AND dt = '{day}'")


@pytest.fixture
def window(config):
    return read_window(D2, config, [D2])


def mapped_of(window, config, mask=None):
    mask = np.ones(len(window), bool) if mask is None else mask
    return map_window(window, mask, config, encoder_version=VERSION)


def test_each_impression_has_the_embeddings_of_its_own_behaviors_and_title(window, config):
    mapped = mapped_of(window, config)
    rows = impression_rows(window, np.ones(4, bool), mapped, sequences=SEQUENCES)
    assert rows.impression_ids.tolist() == [f"{D1}-u0", f"{D1}-u1", f"{D1}-u2", f"{D2}-u1"]
    read = {("u0", "bills"): ["rice", "tea"], ("u0", "visits"): ["shop"], ("u1", "bills"): ["bus"]}  # S is 2
    for r, user in enumerate(["u0", "u1", "u2", "nobody"]):
        for feature, history in rows.histories.items():
            part = slice(history.starts[r], history.ends[r])
            texts = read.get((user, feature), [])
            vectors = mapped.index.vectors[history.behavior_rows[part]]
            assert vectors.tolist() == [vector(text).tolist() for text in texts]
    bills = rows.histories["bills"]
    assert bills.occurred_at[bills.starts[0] : bills.ends[0]].tolist() == [
        int(at(D1, hour).timestamp()) * 1_000_000 for hour in (1, 2)
    ]
    assert rows.title_rows[-1] == -1
    assert mapped.index.vectors[rows.title_rows[0]].tolist() == vector("a lamp").tolist()


def test_each_impression_has_its_own_sums(window, config):
    mask = np.array([False, True, True, True])
    rows = impression_rows(window, mask, mapped_of(window, config), sequences=SEQUENCES)
    assert rows.sums[:].shape == (3, len(IMPRESSION_SUMS))
    np.testing.assert_array_equal(rows.sums[:][:, 0], [np.nan, np.nan, 3.0])
    np.testing.assert_array_equal(rows.sums[:][:, -1], [2.0, np.nan, 3.0])


def test_impressions_that_were_not_mapped_have_no_sums_of_others(window, config):
    mapped = mapped_of(window, config, np.array([True, False, True, True]))
    for mask in (np.ones(4, bool), np.array([False, True, False, False])):
        with pytest.raises(ValueError, match="not mapped"):
            impression_rows(window, mask, mapped, sequences=SEQUENCES)


@pytest.mark.parametrize(
    ("day", "users"),
    [(D1, ["u0"]), (D1, ["u0", "u2", "u1"]), (D2, []), (D2, ["u1", "u1"])],
    ids=["fewer", "others", "none at the end", "more at the end"],
)
def test_impressions_written_anew_since_the_window_was_read_are_refused(window, config, day, users):
    replace(config, "impressions", [impression(day, user, "a lamp") for user in users], predicate=f"dt = '{day}'")
    with pytest.raises(TableChangedError, match="run again"):
        mapped_of(window, config)


def test_columns_are_those_of_the_rows_asked_for(window, config):
    mapped = mapped_of(window, config)
    rows = impression_rows(window, np.ones(4, bool), mapped, sequences=SEQUENCES)
    assert rows.cat["city"].tolist() == ["a", "b", None, None]
    assert rows.cat["genre"].tolist() == [None, "x", None, None]
    rows = impression_rows(window, np.array([True, False, True, True]), mapped, sequences=SEQUENCES)
    assert {name: column.tolist() for name, column in rows.cat.items()} == {"city": ["a", None, None]}


def test_days_of_users_are_told_apart_and_others_are_not_of_the_window(window):
    table = pa.table({"dt": [D1, D2, D2, D1, D1], "user_id": ["u0", "u0", "u1", "stranger", "u0"]})
    first, second, third, stranger, again = user_days(table, window.users)
    assert len({first, second, third}) == 3
    assert (again, stranger) == (first, -1)
    (batch,) = table.slice(2).to_batches()
    assert user_days(batch, window.users).tolist() == [third, stranger, first]
    assert user_days(table.slice(5), window.users).tolist() == []


def test_held_out_users_are_those_of_the_definition(config):
    users = [f"user {n}" for n in range(60)]
    for day in (D1, D2):
        rows = [impression(D1, "u2", None) | {"dt": day, "impression_id": f"{day} {u}", "user_id": u} for u in users]
        replace(config, "impressions", rows * 2, predicate=f"dt = '{day}'")
    window = read_window(D2, config, [D2])
    ids = window.columns(["user_id"], np.ones(len(window), bool))["user_id"].to_pylist()
    expected = [is_held_out(u, d, config.gate.held_out_share) for u, d in zip(ids, window.landed.tolist(), strict=True)]
    assert window.held_out.tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_a_behavior_nobody_has_is_left_out_and_two_readers_share_one_file(window, config):
    first, second = mapped_of(window, config), mapped_of(window, config)
    assert len(first.index.vectors) == 5
    assert first.index.vectors.filename == second.index.vectors.filename
    assert second.sequences.starts.equals(first.sequences.starts)


def test_only_masked_rows_need_embeddings_and_a_missing_one_is_named(window, config):
    store(config, D2, [])  # "bus" is u1's
    few = mapped_of(window, config, np.array([True, False, True, True]))
    assert len(few.index.vectors) == 4
    with pytest.raises(
        MissingEmbeddingError, match=f"1 behaviors have no embedding, for example {behavior_key('bus')}"
    ):
        mapped_of(window, config)
    with pytest.raises(MissingEmbeddingError, match=behavior_key("of nobody")):
        few.index.rows_of(pa.array([behavior_key("tea"), behavior_key("of nobody")]))


def test_each_row_of_the_index_finds_its_own_text(window, config):
    index, texts = mapped_of(window, config).index, ["tea", "rice", "shop", "a lamp", "bus", "of nobody"]
    dictionary = [{"behavior_key": behavior_key(text), "text": text} for text in texts]
    append_rows(config.tables_dir, "atomic_behaviors", pa.Table.from_pylist(dictionary), partitions={})
    rows = np.array([3, 0, 4, 1, 2])
    found = stored_texts(index, config)(rows)
    assert sorted(found) == sorted(set(texts) - {"of nobody"})
    assert np.array_equal(np.stack([vector(text) for text in found]), index.vectors[rows])


def test_another_version_s_vectors_are_not_read(window, config):
    store(config, D2, ["bus"], version="enc-b")
    store(config, D2, [])
    with pytest.raises(MissingEmbeddingError):
        mapped_of(window, config)


@pytest.mark.parametrize(
    "name", ["vectors", "digests", "heads", "counts", "behavior_rows", "occurred_at", "starts", "sums"]
)
def test_a_file_cut_short_is_made_anew(window, config, name):
    whole = mapped_of(window, config).index.vectors.copy()
    folder = next((config.home / "work" / "days").iterdir())
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    again = mapped_of(window, config)
    assert (folder / name).read_bytes() == content
    assert np.array_equal(again.index.vectors, whole)


def test_an_encode_since_makes_it_anew(window, config):
    first = mapped_of(window, config).index.vectors.filename
    store(config, D2 + timedelta(days=1), ["cake"])
    assert mapped_of(window, config).index.vectors.filename != first


def test_a_window_without_impressions_is_empty(window, config):
    mapped = mapped_of(window, config, np.zeros(4, bool))
    rows = impression_rows(window, np.zeros(4, bool), mapped, sequences=SEQUENCES)
    assert (len(rows), rows.histories, mapped.index.vectors.shape) == (0, {}, (0, WIDTH))
