import argparse
import dataclasses
import json
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch

from bahe_tasks.checkpoint import checkpoint_dir
from bahe_tasks.core.batches import collate
from bahe_tasks.core.intervals import paired_auc_difference_interval
from bahe_tasks.core.llm_split import LlmSplit
from bahe_tasks.core.resampling import Interval
from bahe_tasks.core.text_encoder import TextEncoder
from bahe_tasks.core.training_rows import row_columns, texts_read
from bahe_tasks.stages.model_of_day import model_to_train
from benchmarks import split_study
from benchmarks.kit.full_text import TokenTable, collate_full_text
from benchmarks.kit.paired_seeds import mean_auc_difference, rows_for_half_width
from benchmarks.kit.split_runs import replays
from benchmarks.kit.split_variants import SplitVariant, replay_variant, split_variants
from benchmarks.kit.study_log import LateLabelsError, add_log_arguments, read_study_log
from benchmarks.kit.text_readers import TokenVectors, WholeText, text_numbers, token_vectors
from benchmarks.split_study import run

CPU = torch.device("cpu")


@pytest.fixture
def two_days(study):
    return dataclasses.replace(study, days=study.days[:2])


@pytest.fixture
def spec(study, tiny_config):
    config = dataclasses.replace(
        tiny_config, model=dataclasses.replace(tiny_config.model, text_topics=0, text_id_width=0, history_extents=False)
    )
    rows, numbers = study.days[0][1], text_numbers(len(study.log.texts))
    return model_to_train(rows, numbers, config, None, texts_at=lambda _: [], encoder_version="replay", seed=1)[1]


def _batch(study, spec, values, index):
    rows = study.days[0][1]
    return collate(rows, values, np.array(index), columns=row_columns(rows, spec), features=spec.features, device=CPU)


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-3), ("bfloat16", 2e-2)])
def test_without_a_table_predictions_are_the_same(two_days, tiny_config, dtype, atol):
    config = dataclasses.replace(tiny_config, training=dataclasses.replace(tiny_config.training, compute_dtype=dtype))
    with_table, without = (
        replay_variant(SplitVariant(kind, 1), two_days, config, seed=1).predictions
        for kind in ("bahe", "without_table")
    )
    assert np.array_equal(with_table.labels, without.labels)
    np.testing.assert_allclose(with_table.scores, without.scores, atol=atol)  # float16 vectors, rounded either way
    assert with_table.scores.std() > 0.01


@pytest.mark.parametrize(("tuning", "moves"), [("full", True), ("frozen", False)])
def test_only_frozen_deep_layers_stay_what_they_were(tuning, moves, two_days, tiny_config):
    model = replay_variant(SplitVariant("bahe", 1, tuning), two_days, tiny_config, seed=1).model
    fresh = LlmSplit.load(checkpoint_dir(tiny_config.encoder.checkpoint), 1).deep.state_dict()
    assert any(not torch.equal(weight, fresh[name]) for name, weight in model.deep.state_dict().items()) == moves


def test_full_text_trains_every_layer(two_days, tiny_config):
    model = replay_variant(SplitVariant("full_text", 0), two_days, tiny_config, seed=1).model
    fresh = LlmSplit.load(checkpoint_dir(tiny_config.encoder.checkpoint), 0)
    before = {**fresh.deep.llm.state_dict(), **fresh.shallow.llm.state_dict()}
    after = model.deep.state_dict()
    kept = [name for name, weight in after.items() if name in before and torch.equal(weight, before[name])]
    assert all("position_ids" in name or "token_type_ids" in name for name in kept), kept


def test_whole_text_reads_what_full_text_collates(study, spec):
    rows, index = study.days[0][1], list(range(6))
    tokens = TokenTable.of([[n % 50 + 1] * (1 + n % 4) for n in range(len(study.log.texts))])
    asked = {"features": spec.features, "max_tokens": 12}
    found = WholeText(tokens, **asked)(_batch(study, spec, text_numbers(len(study.log.texts)), index))
    columns = row_columns(rows, spec)
    expected = collate_full_text(rows, tokens, np.array(index), columns=columns, device=CPU, **asked)
    for name, rows_of in (("histories", "user_of"), ("titles", "item_of")):
        one, other = getattr(found, name), getattr(expected, name)
        chosen = getattr(found, rows_of)
        assert [ids[mask].tolist() for ids, mask in zip(one.ids[chosen], one.mask[chosen], strict=True)] == [
            ids[mask].tolist() for ids, mask in zip(other.ids, other.mask, strict=True)
        ]
        torch.testing.assert_close(one.ages_s[chosen][one.mask[chosen]], other.ages_s[other.mask])


def test_token_vectors_average_to_the_behavior_embedding(study, spec, tiny_config):
    encoder, folder = tiny_config.encoder, checkpoint_dir(tiny_config.encoder.checkpoint)
    rows = [study.days[0][1]]
    pooled = study.log.encode_read(rows, folder, encoder)
    table = token_vectors(
        study.log.texts, texts_read(rows).tolist(), checkpoint_dir=folder, encoder=encoder, device=CPU
    )
    by_token = TokenVectors(*table, pooled)(_batch(study, spec, text_numbers(len(pooled)), range(8)))
    by_behavior = _batch(study, spec, pooled, range(8))
    lengths = [len(ids) for ids in TextEncoder(folder, encoder, device=CPU).tokenize(study.log.texts)]
    torch.testing.assert_close(by_token.items.titles, by_behavior.items.titles)
    for tokens, behaviors, numbers in zip(
        by_token.users.groups,
        by_behavior.users.groups,
        _batch(study, spec, text_numbers(len(pooled)), range(8)).users.groups,
        strict=True,
    ):
        for q in range(len(numbers.slots)):
            of_q = [int(n) for n in numbers.behaviors[q, :, 0][numbers.mask[q]]]
            parts = tokens.behaviors[q][tokens.mask[q]].split([lengths[n] for n in of_q])
            averages = torch.stack([part.mean(0) for part in parts])
            torch.testing.assert_close(averages, behaviors.behaviors[q][behaviors.mask[q]], atol=2e-3, rtol=2e-3)


def test_only_texts_that_are_read_are_encoded(study, tiny_config):
    rows = [study.days[0][1]]
    found = study.log.encode_read(rows, checkpoint_dir(tiny_config.encoder.checkpoint), tiny_config.encoder)
    whole = study.log.encode(checkpoint_dir(tiny_config.encoder.checkpoint), tiny_config.encoder)
    read = texts_read(rows)
    assert 0 < len(read) < len(found)
    np.testing.assert_allclose(found[read], whole[read], atol=2e-3)
    assert not np.delete(found, read, axis=0).any()


def test_new_users_and_items_have_no_earlier_replayed_day(study):
    for column in ("user_ids", "item_ids"):
        seen = set(getattr(study.days[0][1], column))
        expected = []
        for _, rows in study.days[1:]:
            expected += [name not in seen for name in getattr(rows, column)]
            seen |= set(getattr(rows, column))
        assert study.of_new(column).tolist() == expected


def test_of_one_seed_the_difference_is_that_of_core():
    rng = np.random.default_rng(3)
    scores, other = rng.random((2, 300))
    labels, users = (rng.random(300) < scores).astype(float), rng.integers(40, size=300)
    found = mean_auc_difference(labels, [scores], [other], users, samples=50, seed=4)
    assert found == paired_auc_difference_interval(labels, scores, other, users, samples=50, seed=4)
    twice = mean_auc_difference(labels, [scores] * 2, [other] * 2, users, samples=50, seed=4)
    assert twice == found


def test_a_tenth_of_the_half_width_needs_a_hundred_times_the_rows():
    assert rows_for_half_width(Interval(0.0, -0.02, 0.02, 0.95), 500, half_width=0.002) == pytest.approx(50_000)


def test_the_study_has_a_row_for_every_split_trained_and_frozen_and_either_saving(two_days, tiny_config):
    document = run(two_days, tiny_config, splits=[0, 1, 3], seeds=2)
    kinds = [(row["variant"], row["num_shallow_layers"], row["tuning"]) for row in document.rows]
    assert kinds == [
        (v.kind, v.num_shallow_layers, v.tuning) for v in split_variants([0, 1, 3], default=1, num_layers=3)
    ]
    assert ("bahe", 3, "frozen") not in kinds
    default = next(row for row in document.rows if (row["variant"], row["num_shallow_layers"]) == ("bahe", 1))
    assert document.figures["auc_difference"] == default["difference"]
    assert document.figures["auc_difference_low"] == default["low"]
    assert document.rows[0]["difference"] == 0
    assert document.rows[0]["cpu_ratio"] == 1
    assert {row["rows"] for row in document.rows} == {len(two_days.days[1][1])}


def test_replays_side_by_side_and_those_kept_are_the_same(two_days, tiny_config, tmp_path):
    variant = SplitVariant("bahe", 1)

    def scores(**given):
        ((_, runs),) = replays([variant], two_days, tiny_config, seeds=2, **given)
        return [run.scores for run in runs]

    alone, side_by_side = scores(processes=1, kept=None), scores(processes=2, kept=tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(alone, side_by_side, strict=True))
    assert not np.array_equal(*alone)
    one, _ = tmp_path.iterdir()
    with np.load(one) as found:
        np.savez(one, **{**found, "scores": found["scores"] * 0})
    assert sum(not of_seed.any() for of_seed in scores(processes=1, kept=tmp_path)) == 1


@pytest.mark.parametrize(("minutes", "is_refused"), [(10, False), (24 * 60, True)])
def test_a_log_whose_labels_come_on_a_later_day_is_refused(tmp_path, capsys, monkeypatch, minutes, is_refused):
    landing = tmp_path / "impressions"
    for day in (1, 2):
        (landing / f"dt=2024-01-0{day}").mkdir(parents=True)
        shown = datetime(2024, 1, day, 12)
        row = {
            "impression_id": str(day),
            "user_id": "u",
            "item_id": "m",
            "shown_at": f"{shown:%Y-%m-%dT%H:%M:%S}",
            "label": 1,
        }
        row["label_known_at"] = f"{shown + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%S}"
        (landing / f"dt=2024-01-0{day}" / "rows.jsonl").write_text(json.dumps(row))
    parser = argparse.ArgumentParser()
    add_log_arguments(parser, days=4, users=4, max_behaviors=3)
    given = parser.parse_args(["--landing", str(tmp_path)])
    if not is_refused:
        assert len(read_study_log(given).days) == 2
        return
    with pytest.raises(LateLabelsError):
        read_study_log(given)
    monkeypatch.setattr("sys.argv", ["split_study", "--landing", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        split_study.main()
    assert ended.value.code == 2
    assert "labels come on a later day" in capsys.readouterr().err
