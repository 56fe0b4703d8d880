"""The same log in other shapes, to see what a configuration that was chosen on one of them is worth on the others.

    python -m benchmarks.public_logs.shapes SHAPE LANDING OUT         # LANDING from `bahe import movietweetings`

Who clicks what, and when, stays as it is; what is told of it does not. Of logs whose items have a title and change at the start
of a day, as those of MovieTweetings do: `unique_items` takes the row of an item that the day ends with. Shapes:

    unique_items    each impression shows an item of its own, of the same title and columns: no item is ever met again
    daily_users     a user has another id each day: no user ever comes back, a history is what happened the same day
    one_feature     of events one text feature is left, `liked`; there are no columns
    six_features    events are parted by the decade of the film too: six text features, most of them short
    no_titles       items have no title; what users liked and disliked is told
    ids_alone       neither texts nor columns: users, items, times and labels
    boilerplate     each text follows thirty words that are the same everywhere
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bahe_tasks.landing import landed_days, landed_files
from bahe_tasks.schemas import SOURCES
from bahe_tasks.sources.landing_files import json_lines, landing_file, write_whole

Values = dict[str, Any]
Day = dict[str, list[Values]]
"""source → rows of one landed day."""
Catalogue = dict[str, Values]
"""item_id → its newest row."""
BOILERPLATE = (
    "Now in our catalogue, in high definition, with subtitles in twelve languages, free for the first month, to be watched "
    "at home or on the way, alone or with friends, as often as you like:"
)
_YEAR = re.compile(r"\((\d{4})\)")
_RECENT, _NEW = 1990, 2010


def unique_items(day: Day, known: Catalogue) -> Day:
    """Give the item of an impression the impression's id; an event at the same time by the same user has it too."""
    shown = {(row["user_id"], row["item_id"], row["shown_at"]): row["impression_id"] for row in day["impressions"]}
    items = [
        known[row["item_id"]] | {"item_id": row["impression_id"], "updated_at": f"{row['shown_at'][:10]}T00:00:00Z"}
        for row in day["impressions"]
        if row["item_id"] in known
    ]
    return {
        "impressions": [row | {"item_id": row["impression_id"]} for row in day["impressions"]],
        "behavior_events": [
            row | {"item_id": shown.get((row["user_id"], row.get("item_id"), row["occurred_at"]))}
            for row in day["behavior_events"]
        ],
        "items": items,
    }


def daily_users(day: Day, _known: Catalogue) -> Day:
    """Add the day to the ids of users."""

    def renamed(row: Values, time: str) -> Values:
        return row | {"user_id": f"{row['user_id']} {row[time][:10]}"}

    impressions = [renamed(row, "shown_at") for row in day["impressions"]]
    events = [renamed(row, "occurred_at") for row in day["behavior_events"]]
    return day | {"impressions": impressions, "behavior_events": events}


def one_feature(day: Day, _known: Catalogue) -> Day:
    """Leave out disliked titles and columns."""
    return {
        "impressions": [_without_columns(row) for row in day["impressions"]],
        "behavior_events": [row for row in day["behavior_events"] if row["feature"] == "liked"],
        "items": [_without_columns(row) for row in day["items"]],
    }


def six_features(day: Day, _known: Catalogue) -> Day:
    """Part the events of each text feature in three, by the year in the text."""

    def era(text: str) -> str:
        year = int(found[1]) if (found := _YEAR.search(text)) else 0
        return "old" if year < _RECENT else "recent" if year < _NEW else "new"

    events = [row | {"feature": f"{row['feature']}_{era(row['text'])}"} for row in day["behavior_events"]]
    return day | {"behavior_events": events}


def no_titles(day: Day, _known: Catalogue) -> Day:
    """Leave out titles."""
    return day | {"items": [{k: v for k, v in row.items() if k != "title"} for row in day["items"]]}


def ids_alone(day: Day, _known: Catalogue) -> Day:
    """Leave out events, titles and columns."""
    return {"impressions": [_without_columns(row) for row in day["impressions"]], "behavior_events": [], "items": []}


def boilerplate(day: Day, _known: Catalogue) -> Day:
    """Put the same words before each text."""
    events = [row | {"text": f"{BOILERPLATE} {row['text']}"} for row in day["behavior_events"]]
    items = [row | {"title": f"{BOILERPLATE} {row['title']}"} for row in day["items"]]
    return day | {"behavior_events": events, "items": items}


def _without_columns(row: Values) -> Values:
    return {name: value for name, value in row.items() if not name.startswith(("cat_", "num_"))}


SHAPES: dict[str, Callable[[Day, Catalogue], Day]] = {
    shape.__name__: shape
    for shape in (
        unique_items,
        daily_users,
        one_feature,
        six_features,
        no_titles,
        ids_alone,
        boilerplate,
    )
}


def reshape(landing: Path, out: Path, shape: Callable[[Day, Catalogue], Day]) -> dict[str, int]:
    """Write each landed day (JSON lines) in another shape; return how many rows of each source there are."""
    catalogue: Catalogue = {}
    counts = dict.fromkeys(SOURCES, 0)
    for day in sorted({day for source in SOURCES for day in landed_days(landing, source)}):
        rows = {
            source: [json.loads(line) for file in landed_files(landing, source, day) for line in file.open("rb")]
            for source in SOURCES
        }
        catalogue |= {row["item_id"]: row for row in rows["items"]}
        for source, shaped in shape(rows, catalogue).items():
            if shaped:
                write_whole(landing_file(out, source, day, "part-0.jsonl"), json_lines(shaped))
                counts[source] += len(shaped)
    return counts


def main(
    shape: Annotated[str, typer.Argument(help=", ".join(SHAPES))],
    landing: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Landing folder of JSON lines.")],
    out: Annotated[Path, typer.Argument(help="Landing folder to write.")],
) -> None:
    """Write a log in another shape."""
    if shape not in SHAPES:
        raise typer.BadParameter(f"{shape}: not among {', '.join(SHAPES)}")
    if out.exists() and any(out.iterdir()):
        raise typer.BadParameter(f"{out} is not empty: two shapes would be mixed")
    for source, count in reshape(landing, out, SHAPES[shape]).items():
        print(f"{source}: {count:,}")


app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
