"""The expectations of the two gates, as functions: a day's inputs, its new embeddings, its challenger.

Every rule and threshold of the gate is in this file; the frames they are asked of are made in gate_frames.py. A
challenger is refused only where the evidence is clear: the interval, not the point, decides.

Unusual: figures of a one-row frame are asked with ExpectColumnMin/MaxToBeBetween, which fail on a number that is
missing or NaN; the expectations over column values would skip it and pass.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from bahe_tasks.config import GateConfig
from bahe_tasks.data_interval import end_of, start_of

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from bahe_tasks.stores.gate_frames import ChallengerMetrics

_KEY = "^[0-9a-f]{64}$"
_SMALLEST_NORM = 1e-3
"""A text's vector is never zero; a norm below this (float16 holds 3 digits) is a broken encoder."""


def input_suites(day: date, *, gate: GateConfig, late_days: int) -> dict[str, list[Expectation]]:
    """Return the suites over the day's frames of `gate_frames.input_frames`.

    Neither zero impressions nor zero events is a failure, unless impressions landed and all are in quarantine. The rule
    for a shrunken day holds only for a source that has rows today and had some on an earlier day.
    """
    import great_expectations.expectations as gxe

    earliest, before = start_of(day - timedelta(days=late_days)), end_of(day)

    def not_null(*columns: str) -> list[Expectation]:
        return [gxe.ExpectColumnValuesToNotBeNull(column=column) for column in columns]

    def within_the_day(column: str) -> Expectation:
        return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=earliest, max_value=before, strict_max=True)

    return {
        "day_counts": [
            gxe.ExpectColumnMinToBeBetween(column="landed_rows", min_value=1),
            gxe.ExpectColumnMaxToBeBetween(column="unaccounted_rows", min_value=0, max_value=0),
            gxe.ExpectColumnMaxToBeBetween(
                column="quarantined_share", max_value=gate.max_quarantined_share, meta=_of("gate.max_quarantined_share")
            ),
            gxe.ExpectColumnMaxToBeBetween(column="impressions_lost", min_value=0, max_value=0),
            *(
                gxe.ExpectColumnValuesToBeBetween(
                    column=f"{source}_share_of_median", min_value=gate.min_rows_share, meta=_of("gate.min_rows_share")
                )
                for source in ("behavior_events", "impressions")
            ),
        ],
        "behavior_events": [
            *not_null("user_id", "feature", "occurred_at", "behavior_key", "text"),
            within_the_day("occurred_at"),
        ],
        "behavior_keys": [gxe.ExpectColumnValuesToMatchRegex(column="behavior_key", regex=_KEY)],
        "items": [
            *not_null("item_id", "updated_at"),
            within_the_day("updated_at"),
        ],
        "title_keys": [gxe.ExpectColumnValuesToMatchRegex(column="title_key", regex=_KEY)],
        "impressions": [
            *not_null("impression_id", "user_id", "item_id", "shown_at", "label", "label_date"),
            gxe.ExpectColumnValuesToBeNull(column="repeated_impression_id"),
            gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[0, 1]),
            within_the_day("shown_at"),
            gxe.ExpectColumnValuesToBeBetween(column="smallest_sequence_end", min_value=0),
        ],
    }


def embedding_suites(dimension: int) -> dict[str, list[Expectation]]:
    """Return the suites over `gate_frames.embedding_frames`: H = `dimension` finite numbers a key, and every key there."""
    import great_expectations.expectations as gxe

    return {
        "behavior_embeddings": [
            gxe.ExpectColumnValuesToMatchRegex(column="behavior_key", regex=_KEY),
            gxe.ExpectColumnValuesToBeUnique(column="behavior_key"),
            gxe.ExpectColumnValuesToBeInSet(column="dimension", value_set=[dimension]),
            gxe.ExpectColumnValuesToBeInSet(column="finite", value_set=[True]),
            gxe.ExpectColumnValuesToBeBetween(column="norm", min_value=_SMALLEST_NORM),
        ],
        "embedding_coverage": [gxe.ExpectColumnMaxToBeBetween(column="missing_keys", min_value=0, max_value=0)],
    }


def challenger_suites(
    metrics: ChallengerMetrics, *, gate: GateConfig
) -> tuple[dict[str, list[Expectation]], dict[str, list[Expectation]]]:
    """Return the suites over the challenger's metrics: those to be asked, and those there is too little evidence for.

    Too little is fewer than `min_gate_rows` rows, or one class. Where only users are fewer than `min_gate_users` it is still asked
    whether scores differ at all, which is no interval over users. With a reference the AUC may not be lost and the
    calibration must be in bounds; without one the model must not be clearly worse than the base rate.
    """
    import great_expectations.expectations as gxe

    always: list[Expectation] = [gxe.ExpectColumnMaxToBeBetween(column="non_finite_scores", min_value=0, max_value=0)]
    not_all_alike = gxe.ExpectColumnMinToBeBetween(column="score_std", min_value=0.0, strict_min=True)
    comparison: list[Expectation] = []
    if metrics.has_reference:
        comparison += [
            gxe.ExpectColumnMinToBeBetween(
                column="auc_difference_high", min_value=-gate.max_auc_loss, meta=_of("gate.max_auc_loss")
            ),
            gxe.ExpectColumnMinToBeBetween(
                column="calibration_high", min_value=gate.min_calibration, meta=_of("gate.min_calibration")
            ),
            gxe.ExpectColumnMaxToBeBetween(
                column="calibration_low", max_value=gate.max_calibration, meta=_of("gate.max_calibration")
            ),
        ]
    else:
        comparison += [gxe.ExpectColumnMaxToBeBetween(column="logloss_excess_low", max_value=0.0)]
    if metrics.rows < gate.min_gate_rows or metrics.positives in (0, metrics.rows):
        return {"challenger": always}, {"challenger": [not_all_alike, *comparison]}
    if metrics.users < max(gate.min_gate_users, 2):  # of one user there is no interval
        return {"challenger": [*always, not_all_alike]}, {"challenger": comparison}
    return {"challenger": [*always, not_all_alike, *comparison]}, {}


def _of(setting: str) -> dict[str, str]:
    """Return the meta data of an expectation whose limit is a setting."""
    return {"setting": setting}
