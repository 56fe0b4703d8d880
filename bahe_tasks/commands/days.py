"""Verbs about days: run-day, backfill, status."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bahe_tasks.commands.console import (
    DEFAULT_HOME,
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_WRONG_USE,
    AsJson,
    Home,
    log,
    read_config,
    remark,
    require_order,
    show,
    table_of,
    wants_traceback,
    writable_config,
)
from bahe_tasks.commands.progress import day_progress
from bahe_tasks.commands.ranks import started_by_torchrun
from bahe_tasks.config import Config, SequencesConfig
from bahe_tasks.data_interval import parse_day
from bahe_tasks.landing import not_read
from bahe_tasks.wrong_use import WrongUseError

if TYPE_CHECKING:
    from bahe_tasks.engines.day_outcome import DayOutcome


class Engine(StrEnum):
    """What runs the tasks of a backfill."""

    inline = "inline"
    airflow = "airflow"


def _reason(text: str | None) -> str | None:
    """Return the reason given, None where none was asked for. Raises `BadParameter` for an empty one."""
    if text is not None and not text.strip():
        raise typer.BadParameter("say why the day is good anyway")
    return text


Force = Annotated[bool, typer.Option("--force", help="Compute again although the inputs have not changed.")]
Accept = Annotated[
    str | None,
    typer.Option(
        "--accept-inputs", metavar="REASON", callback=_reason, help="Let a day through that validate_inputs refuses."
    ),
]

STATUS_COLUMNS = [
    "day",
    "landed_rows",
    "table_rows",
    "duplicate_rows",
    "quarantined_rows",
    "impressions",
    "new_behaviors",
    "reuse_rate",
    "gate",
    "champion_version",
    "stale",
]
NARROW = {
    "duplicate_rows": "dupl. rows",
    "quarantined_rows": "quar. rows",
    "impressions": "impr.",
    "new_behaviors": "new behav.",
    "champion_version": "model",
    "progressive_auc": "progr. AUC",
}
"""Headers that leave a table readable on 80 columns."""


def run_day(
    day: Annotated[str, typer.Argument(metavar="DAY", help="YYYY-MM-DD, UTC.")],
    home: Home = DEFAULT_HOME,
    force: Force = False,
    accept_inputs: Accept = None,
    as_json: AsJson = False,
) -> None:
    """Run one day in this process: dedup, validate, encode, fine-tune, register, gate, promote, publish."""
    from bahe_tasks.engines import inline

    config, wanted = writable_config(home), parse_day(day)
    with day_progress() as progress:
        outcomes = list(
            inline.run_backfill(wanted, wanted, config, force=force, accept_reason=accept_inputs, progress=progress)
        )
    _finish(outcomes, as_json=as_json, single=True)


def backfill(
    first: Annotated[str, typer.Argument(metavar="FROM", help="First day, YYYY-MM-DD.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="Last day, included.")],
    engine: Annotated[
        Engine, typer.Option(help="inline: in this process. airflow: an embedded Airflow.")
    ] = Engine.inline,
    home: Home = DEFAULT_HOME,
    force: Force = False,
    accept_inputs: Accept = None,
    as_json: AsJson = False,
) -> None:
    """Run the days from FROM to TO, oldest first. Goes on after a refused day and exits 3 at the end."""
    config, start, end = writable_config(home), parse_day(first), parse_day(last)
    require_order(start, end)
    _finish(list(_run(engine, start, end, config, force=force, accept_reason=accept_inputs)), as_json=as_json)


def _run(
    engine: Engine, start: date, end: date, config: Config, *, force: bool, accept_reason: str | None
) -> Iterable[DayOutcome]:
    if engine is Engine.airflow:
        if started_by_torchrun():
            raise WrongUseError("tasks of Airflow do not share torchrun's processes: use --engine inline under it")
        from bahe_tasks.engines.airflow_backfill import run_backfill_in_airflow

        return run_backfill_in_airflow(config, start, end, force=force, accept_inputs=accept_reason)
    from bahe_tasks.engines import inline

    outcomes = []
    with day_progress() as progress:
        for outcome in inline.run_backfill(
            start, end, config, force=force, accept_reason=accept_reason, progress=progress
        ):
            log.print(_sentence(outcome), highlight=False, markup=False, soft_wrap=True)
            outcomes.append(outcome)
    return outcomes


def _finish(outcomes: list[DayOutcome], *, as_json: bool, single: bool = False) -> None:
    """Print the outcomes and leave with the exit status they mean."""
    rows = [_row(outcome) for outcome in outcomes]
    document = rows[0] if single else {"days": rows}
    columns = ["day", "state", "seconds", "new_behaviors", "reuse_rate", "progressive_auc", "version", "promoted"]
    told = [
        {k: v for result in row["results"].values() for k, v in result.items()}
        | {"day": row["day"], "state": row["state"].replace("_", " "), "seconds": f"{row['seconds']:.1f}"}
        for row in rows
    ]
    show(document, as_json=as_json, table=table_of("Days", told, columns, headers=NARROW))
    for outcome in outcomes:
        if outcome.traceback and wants_traceback():
            log.print(outcome.traceback, end="", highlight=False, markup=False, soft_wrap=True)
        if outcome.message:
            log.print(f"{outcome.day}: {outcome.message}", style="red", highlight=False, markup=False, soft_wrap=True)
        elif single and outcome.results.get("publish_embeddings", {}).get("state") == "not_champion":
            remark(f"{outcome.day}: not promoted, {outcome.results.get('promote_champion', {}).get('reason')}")
    states = {outcome.state for outcome in outcomes}
    if "failed" in states:
        raise typer.Exit(EXIT_WRONG_USE if single and outcomes[0].wrong_use else EXIT_FAILED)
    if "refused" in states:
        raise typer.Exit(EXIT_REFUSED)


def _row(outcome: DayOutcome) -> dict[str, Any]:
    return {
        "day": str(outcome.day),
        "state": outcome.state,
        "seconds": round(outcome.seconds, 3),
        "message": outcome.message,
        "task_states": outcome.task_states,
        "task_seconds": {name: round(seconds, 3) for name, seconds in outcome.task_seconds.items()},
        "results": outcome.results,
    }


def _sentence(outcome: DayOutcome) -> str:
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in outcome.task_seconds.items())
    return f"{outcome.day}  {outcome.state}  {outcome.seconds:.1f} s  ({parts})"


def status(home: Home = DEFAULT_HOME, as_json: AsJson = False) -> None:
    """Show every day: rows, quarantine, new behaviors, reuse rate, gate, champion, stale models."""
    from bahe_tasks.stages.read_status import read_status

    config = read_config(home)
    document = read_status(config)
    champion = document["champion"]
    title = f"Champion: version {champion['version']} of {champion['day']}" if champion else "No champion yet"
    rows = [{**day, "gate": _gate(day)} for day in document["days"]]
    show(document, as_json=as_json, table=table_of(title, rows, STATUS_COLUMNS, headers=NARROW))
    if champion and not champion["in_force"]:
        remark(
            f"Champion {champion['version']} serves on but is no longer in force: its day lost its rows, or it was judged anew. "
            "The next day that passes replaces it; `bahe rollback` goes to the version before it"
        )
    if document["history"] and not as_json:
        earlier, landed = document["history"], sum(day["landed_rows"] for day in document["history"])
        remark(
            f"Histories and titles: {landed} rows of {len(earlier)} earlier days, {earlier[0]['day']} to {earlier[-1]['day']}"
        )
    for day in [*document["history"], *document["days"]] if not as_json else []:
        if day["accepted"] is not None:
            remark(f"{day['day']}: inputs accepted by hand: {day['accepted']}")
        if day["unknown_columns"]:
            remark(f"{day['day']}: unknown columns ignored: {', '.join(day['unknown_columns'])}")
        if day["passed_over_files"]:
            remark(f"{day['day']}: {not_read(day['passed_over_files'])}")
        if day["capped_behaviors"]:
            remark(
                f"{day['day']}: {day['capped_behaviors']} behaviors left out of histories (sequences.max_events_per_sequence)"
            )
        for line in _landed_again(day, [d["day"] for d in document["days"]], config.sequences):
            remark(line)


def _landed_again(day: dict[str, Any], run_days: list[str], sequences: SequencesConfig) -> list[str]:
    """Return what landed again of a day, and how it is taken in."""
    ways: dict[str, list[str]] = {}
    for source in day["landed_again"]:
        ways.setdefault(_way_in(day["day"], source, run_days, sequences), []).append(source)
    return [f"{day['day']}: landed again since it was taken in: {', '.join(of)}; {way}" for way, of in ways.items()]


def _way_in(dt: str, source: str, run_days: list[str], sequences: SequencesConfig) -> str:
    """Return what takes in a source of a day: its own run, else the first after it, which looks furthest back."""
    if dt in run_days:
        return f"`bahe run-day {dt}` takes it in"
    later = next((day for day in run_days if day > dt), None)
    if later is None:
        return "a later day with --force takes it in"
    if source != "items" and date.fromisoformat(dt) < sequences.landed_days(date.fromisoformat(later))[0]:
        return "no day that was run looks back as far (sequences.history_days)"
    return f"`bahe run-day {later} --force` takes it in"


def _gate(day: dict[str, Any]) -> str:
    gate = (day["gate"] or "–").replace("_", " ")
    return gate if day["accepted"] is None else f"{gate}, by hand"
