"""The verb about tables: compact."""

from __future__ import annotations

from typing import Annotated

import typer

from bahe_tasks.commands.console import DEFAULT_HOME, AsJson, Home, show, table_of, writable_config


def compact(
    vacuum: Annotated[
        bool,
        typer.Option(
            "--vacuum", help="Also delete files out of use for longer than any window, and pinned by no model version."
        ),
    ] = False,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Merge the tables' small files, between days; no row changes, and older versions stay readable."""
    from bahe_tasks.stages.compact_tables import compact_tables

    document = compact_tables(writable_config(home), vacuum=vacuum)
    rows = [{"table": name, **files} for name, files in document["tables"].items()]
    columns = ["table", "files_before", "files_after", "deleted_files"]
    show(document, as_json=as_json, table=table_of("Data files", rows, columns))
