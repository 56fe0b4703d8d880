import math
from dataclasses import replace as dataclasses_replace

import numpy as np
import pytest
import torch

from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.expected_click import label_logits
from bahe_tasks.core.head_fields import field_sizes
from bahe_tasks.core.point_in_time import (
    EXPECTED_OF_NUMBERS,
    NUM_SHIFTS,
    NUMBERS,
    expected_log_odds,
    numbers_lacking,
    point_in_time_numbers,
)
from bahe_tasks.core.rows_at import RowsAt
from bahe_tasks.core.training_rows import numbers_read
from bahe_tasks.running_sums import IMPRESSION_SUMS, prior_facts, state_key, title_tokens


def sums_of(**named):
    """One impression: base rate one half, nothing counted, but what is named."""
    row = np.array([[math.nan if "gap" in name or "age" in name else 0.0 for name in IMPRESSION_SUMS]])
    for name, value in {"base_rate": 0.5, **named}.items():
        row[0, IMPRESSION_SUMS.index(name)] = value
    return row


def number(sums, name):
    return float(point_in_time_numbers(sums)[0, NUMBERS.index(name)])


def log_odds(rate):
    return math.log(rate / (1 - rate))


def test_nothing_counted_expects_the_base_rate():
    assert expected_log_odds(sums_of(base_rate=0.02))[0] == pytest.approx(log_odds(0.02), rel=1e-6)
    assert number(sums_of(base_rate=0.02), "expected") == pytest.approx(0, abs=1e-6)
    assert number(sums_of(), "user_gap") != number(sums_of(user_gap_s=60), "user_gap")


def test_an_items_rate_is_smoothed_towards_the_base_rate():
    sums = sums_of(item_label_n_infd=15, item_label_s_infd=12)
    rate = (12 + 5 * 0.5) / (15 + 5)  # hand-worked: five facts at one half
    assert prior_facts("item", 0.5) == pytest.approx(5)
    assert number(sums, "item_rate_infd") == pytest.approx(log_odds(rate), rel=1e-5)
    assert expected_log_odds(sums)[0] == pytest.approx(log_odds(rate), rel=1e-5)


def test_a_user_who_clicks_as_the_items_say_shifts_nothing():
    as_expected = sums_of(user_label_n_infd=10, user_label_s_infd=8, user_label_e_infd=0)
    keener = sums_of(user_label_n_infd=10, user_label_s_infd=8, user_label_e_infd=3)
    assert expected_log_odds(as_expected)[0] == pytest.approx(0, abs=1e-6)
    smoothed = [(clicks + 2.5) / 15 for clicks in (8, 5)]
    assert expected_log_odds(keener)[0] == pytest.approx(log_odds(smoothed[0]) - log_odds(smoothed[1]), rel=1e-5)


def test_a_user_who_never_met_the_item_leaves_its_numbers_at_0_or_absent():
    of_user_item = [name for name in NUMBERS if name.startswith("user_item_")]
    assert {number(sums_of(), name) for name in of_user_item if not name.endswith(("gap", "age"))} == {0.0}
    assert all(math.isnan(number(sums_of(), f"user_item_{name}")) for name in ("gap", "age"))
    met = sums_of(user_item_label_n_infd=3, user_item_label_e_infd=-1.5, user_item_event_n_infd=1)
    assert number(met, "user_item_shift") == pytest.approx(-1.5 / (3 / 4 + 1 / 0.8))  # hand-worked at one half
    assert number(met, "user_item_labels") == pytest.approx(math.log(4))
    assert number(met, "user_item_events") == pytest.approx(math.log(2))


def test_one_click_of_a_rare_event_does_not_make_an_item_certain():
    assert number(sums_of(base_rate=0.01, item_label_n_infd=1, item_label_s_infd=1), "item_rate_infd") < 1


def test_of_absent_sums_the_rate_the_lineage_began_with_is_all_there_is():
    """A late impression has none: it would else be taken for a click in two, however rare clicks are."""
    absent = np.full((1, len(IMPRESSION_SUMS)), np.nan)
    numbers = point_in_time_numbers(absent, first_rate=0.02)[0]
    assert expected_log_odds(absent, first_rate=0.02)[0] == pytest.approx(log_odds(0.02), rel=1e-6)
    assert [name for name, number in zip(NUMBERS, numbers, strict=True) if not math.isnan(number)] == ["base"]


def test_before_any_label_is_known_the_rate_the_lineage_began_with_is_the_base_rate():
    known, unknown = (sums_of(base_rate=rate, item_label_n_infd=3) for rate in (0.02, math.nan))
    np.testing.assert_array_equal(point_in_time_numbers(unknown, first_rate=0.02), point_in_time_numbers(known))
    assert expected_log_odds(unknown, first_rate=0.02) == expected_log_odds(known)
    np.testing.assert_array_equal(point_in_time_numbers(known, first_rate=0.3), point_in_time_numbers(known))


def test_more_rows_than_a_piece_and_rows_of_another_array():
    kinds = np.concatenate([sums_of(), sums_of(user_label_n_infd=3), sums_of(base_rate=0.1, item_label_n_infd=1)])
    places = np.random.default_rng(0).integers(3, size=20_000)
    rows = RowsAt(kinds, places)
    np.testing.assert_array_equal(point_in_time_numbers(rows), point_in_time_numbers(kinds)[places])
    np.testing.assert_array_equal(expected_log_odds(rows), expected_log_odds(kinds)[places])
    assert numbers_lacking(rows) == numbers_lacking(kinds)
    assert len(numbers_lacking(kinds)) == len(numbers_lacking(kinds[:1])) - 2


def test_what_no_impression_has_is_named():
    one = sums_of(user_label_n_infd=1, user_event_n_infd=2, token_log_n=0.7)
    assert numbers_lacking(np.concatenate([sums_of(), one])) == (
        "labels of its item known before",
        "labels of its user on a word of its title known before",
        "labels of its user on the very item known before",
        "behavior events about its item",
        "behavior events of its user about the very item",
        "behavior events with a value",
        "labels of a categorical value known before",
    )
    assert numbers_lacking(np.full((1, len(IMPRESSION_SUMS)), np.nan))
    assert numbers_lacking(np.zeros((0, len(IMPRESSION_SUMS)))) == ()


def test_numbers_stay_on_their_scale():
    rng = np.random.default_rng(3)
    sums = np.abs(rng.standard_cauchy((500, len(IMPRESSION_SUMS)))) * 1e6
    sums[:, 0] = rng.random(500)
    with np.errstate(invalid="ignore"):
        numbers = point_in_time_numbers(sums)
    assert np.nanmax(np.abs(numbers)) <= 4


def test_the_expectation_can_be_read_off_the_numbers():
    rng = np.random.default_rng(4)
    rates = [*rng.random(9), 1e-4]  # the last beyond the scale of the numbers
    sums = np.concatenate(
        [sums_of(item_label_n_infd=9, item_label_s_infd=k, base_rate=rate) for k, rate in enumerate(rates)]
    )
    numbers = np.nan_to_num(point_in_time_numbers(sums))
    assert numbers @ np.array(EXPECTED_OF_NUMBERS) == pytest.approx(expected_log_odds(sums), abs=1e-5)


def test_a_new_model_predicts_what_is_expected(tiny_spec, tiny_split):
    spec = dataclasses_replace(tiny_spec, numbers=NUMBERS)
    deep = tiny_split().deep
    model = new_model(spec, deep, seed=1, base_rates={"label": 0.5})
    for output in model.head.outputs.values():
        torch.nn.init.zeros_(output.weight)
    sums = np.concatenate([sums_of(item_label_n_infd=9, item_label_s_infd=k) for k in range(10)])
    num = torch.from_numpy(numbers_read(spec, {}, sums, num_rows=10))
    parts = model.parts
    logits = model.click_logit(
        torch.ones(10, len(spec.features) * parts.of_history),
        torch.ones(10, parts.of_item),
        torch.zeros(10, len(spec.hashed_columns), dtype=torch.long),
        num,
    )
    assert logits.detach().numpy() == pytest.approx(expected_log_odds(sums), abs=1e-5)


def test_how_the_logs_newest_labels_went_is_told_from_its_base_rate():
    sums = sums_of(base_rate=0.2, log_label_n_50f=40, log_label_s_50f=24)
    prior = 1 / (0.8 * 0.2 * 0.8)  # hand-worked
    rate = (24 + prior * 0.2) / (40 + prior)
    assert number(sums, "log_rate_50f") == pytest.approx(log_odds(rate) - log_odds(0.2), rel=1e-5)
    assert number(sums, "log_rate_500f") == pytest.approx(0, abs=1e-6)
    assert NUMBERS[-NUM_SHIFTS:] == ("cat_shift_10f", "cat_shift_100f", "log_rate_50f", "log_rate_500f")


@pytest.mark.parametrize("head", ["dcn_v2", "mlp", "deepfm"])
def test_how_the_log_goes_reaches_the_click_by_its_factors_alone_and_how_a_categorical_value_goes_the_head_too(
    tiny_spec, tiny_split, head
):
    spec = dataclasses_replace(
        tiny_spec, numbers=NUMBERS, model=dataclasses_replace(tiny_spec.model, head=head), extra_labels=("bought",)
    )
    model = new_model(spec, tiny_split().deep, seed=1, base_rates={"label": 0.5}).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    sums = np.concatenate([sums_of(log_label_n_50f=40, log_label_s_50f=clicks) for clicks in (5, 20, 35)])
    numbers = torch.from_numpy(numbers_read(spec, {}, sums, num_rows=3))
    of_value = np.concatenate([sums_of(cat_label_10f=shift) for shift in (-0.5, 0, 0.5)])
    of_value = torch.from_numpy(numbers_read(spec, {}, of_value, num_rows=3))

    def logits(*, click_only, numbers=numbers):
        fields = {name: torch.ones(3, size) for name, size in field_sizes(spec, width=model.deep.width).items()}
        fields |= model.columns(torch.zeros(3, len(spec.hashed_columns), dtype=torch.long), numbers)
        return label_logits(model.head, model.expected_click, fields, click_only=click_only).detach()

    before = logits(click_only=False)
    assert before[:, 0].std() < 1e-6
    assert logits(click_only=False, numbers=of_value)[:, 1].std() > 1e-4
    with torch.no_grad():
        model.expected_click.factors_of_shifts.fill_(0.1)
    moved = logits(click_only=False) - before
    np.testing.assert_allclose(moved[:, 0], 0.3 * numbers[:, -NUM_SHIFTS:].sum(1), atol=1e-5)
    assert moved[0, 0] < -0.1 < 0.1 < moved[2, 0]
    assert not moved[:, 1:].any()
    np.testing.assert_allclose(logits(click_only=True), logits(click_only=False)[:, :1], atol=1e-6)


def test_without_sums_nothing_is_counted_of_any_row(tiny_spec):
    spec = dataclasses_replace(tiny_spec, numbers=NUMBERS, first_rate=0.02)
    absent = point_in_time_numbers(np.full((2, len(IMPRESSION_SUMS)), np.nan), first_rate=0.02)
    np.testing.assert_array_equal(numbers_read(spec, {}, None, num_rows=2)[:, -len(NUMBERS) :], absent)


def test_tokens_are_distinct_lower_case_words_in_order():
    assert title_tokens("The Mist (2007) · the MIST, Sci-Fi_é") == ["the", "mist", "2007", "sci", "fi", "é"]
    assert len(title_tokens(" ".join(map(str, range(100))))) == 32


@pytest.mark.parametrize(
    ("title", "tokens"),
    [
        ("复仇者联盟4：终局之战", ["复仇", "仇者", "者联", "联盟", "4", "终局", "局之", "之战"]),
        ("スター・ウォーズ II", ["スタ", "ター", "ウォ", "ォー", "ーズ", "ii"]),
        ("iPhone手机壳 爱", ["iphone", "手机", "机壳", "爱"]),
        ("हिन्दी फिल्म", ["हिन्दी", "फिल्म"]),
        ("ต้มยำ", ["ต้ม", "มยำ"]),
        ("葛󠄀城市", ["葛󠄀城", "城市"]),
        ("살인의 추억", ["살인의", "추억"]),
        ("́ _ ½ Łódź n̈ x", ["½", "łódź", "n̈", "x"]),
    ],
)
def test_words_are_told_apart_in_scripts_without_spaces_and_stay_whole_with_their_marks(title, tokens):
    assert title_tokens(title) == tokens


def test_keys_tell_scopes_and_ids_apart():
    keys = {state_key("user", "1"), state_key("item", "1"), state_key("pair", "1", "2"), state_key("pair", "12", "")}
    assert len(keys) == 4
    assert all(0 <= key < 2**60 for key in keys)
