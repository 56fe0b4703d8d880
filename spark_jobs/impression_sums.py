"""From the sums of each key of an impression to its array `sums`: IMPRESSION_SUMS, in that order.

The part of titles is what `core.point_in_time.token_means` gives; tests hold the two equal.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from bahe_tasks.running_sums import HALF_LIVES_DAYS, PRIOR_LOG_ODDS_VARIANCE, PRIOR_VALUES
from spark_jobs.sum_columns import gathered, or_zero

_TITLE_SCOPES = ("token", "pair")
_GAP_S, _AGE_S = "(time_us - last_us) / 1e6D", "(time_us - first_us) / 1e6D"


def impression_sums(answers: DataFrame, *, base_rate: float) -> DataFrame:
    """Return (impression_id, sums array<double>) from a row an impression and key: its sums when it was shown.

    `answers`: scope, impression_id, time_us, first_us and last_us (null: not shown before) and the sum columns.
    """
    of_scope = [
        f"CASE WHEN scope = '{scope}' THEN concat({gathered(scope)}, array({_GAP_S}, {_AGE_S})) END AS of_{scope}"
        for scope in ("user", "item")
    ]
    of_token = [f"{column} AS {name}" for name, column in _of_token(base_rate).items()]
    of_titles = {f"{scope}_{name}": total for scope in _TITLE_SCOPES for name, total in _of_title(scope).items()}
    grouped = (
        answers.selectExpr("impression_id", "scope", *of_scope, *of_token)
        .groupBy("impression_id")
        .agg(
            *[F.expr(f"max(of_{scope})").alias(f"of_{scope}") for scope in ("user", "item")],
            *[F.expr(total).alias(name) for name, total in of_titles.items()],
        )
    )
    sums = f"concat(array({base_rate!r}D), of_user, of_item, array({', '.join(of_titles)}))"
    return grouped.selectExpr("impression_id", f"{sums} AS sums")


def _of_token(base_rate: float) -> dict[str, str]:
    """Return what a mean is taken of, for a row of scope token or pair."""
    columns = {}
    variance = base_rate * (1 - base_rate)
    half_lives = HALF_LIVES_DAYS["token"]
    for half_life in half_lives:
        label_n, label_e, value_n, value_e = (
            or_zero(name, half_life) for name in ("label_n", "label_e", "value_n", "value_e")
        )
        prior_facts = _by_scope({scope: 1 / PRIOR_LOG_ODDS_VARIANCE[scope] for scope in _TITLE_SCOPES})
        columns[f"label_{half_life:g}d"] = f"{label_e} / ({label_n} * {variance!r}D + {prior_facts})"
        columns[f"value_{half_life:g}d"] = f"{value_e} / ({value_n} + {_by_scope(PRIOR_VALUES)})"
    columns["log_n"] = f"log1p({or_zero('label_n', half_lives[0])})"
    columns["log_gap"], columns["log_age"] = f"log1p({_GAP_S})", f"log1p({_AGE_S})"
    return columns


def _of_title(scope: str) -> dict[str, str]:
    """Return means and extremes over the rows of a scope, in the order of IMPRESSION_SUMS."""
    half_lives = [f"{half_life:g}d" for half_life in HALF_LIVES_DAYS[scope]]

    def over(total: str, name: str) -> str:
        return f"{total}(CASE WHEN scope = '{scope}' THEN {name} END)"

    kinds = ("label", "value")
    means = {f"{kind}_{half_life}": over("avg", f"{kind}_{half_life}") for kind in kinds for half_life in half_lives}
    extremes = {f"{kind}_{total}": over(total, f"{kind}_{half_lives[0]}") for kind in kinds for total in ("max", "min")}
    return means | extremes | {name: over("avg", name) for name in ("log_n", "log_gap", "log_age")}


def _by_scope(of: dict[str, float]) -> str:
    return f"CASE WHEN scope = 'pair' THEN {of['pair']!r}D ELSE {of['token']!r}D END"
