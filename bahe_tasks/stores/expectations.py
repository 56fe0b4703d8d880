"""Great Expectations: run suites over pandas frames, tell failed from errored, and keep the Data Docs.

Results are kept under GX_DIR/YYYY-MM/validations, one file per day, stage and frame, and shown as static pages under
GX_DIR/YYYY-MM/data_docs. A stage run again for a day replaces its results. There is one site a month because Great
Expectations reads every result of a site whenever it adds one: so a day costs the same however old the home is.

Unusual: the context is built in memory around these two folders. A file context would rewrite one shared YAML file in
every process. An expectation that raises does not raise here: it comes back as `errored`, which stops a gate as much
as `failed` does. Importing Great Expectations takes seconds, so it happens inside the functions.
"""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import pandas as pd

from bahe_tasks.data_interval import start_of
from bahe_tasks.stores.gate_frames import FRAMES_OF_FIGURES

if TYPE_CHECKING:
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.data_context import EphemeralDataContext
    from great_expectations.data_context.types.resource_identifiers import ValidationResultIdentifier
    from great_expectations.expectations.expectation import Expectation

Outcome = Literal["passed", "failed", "errored", "not_enough_evidence", "accepted"]

_LOG = logging.getLogger(__name__)
_SHOWN_VALUES = 3
_VALIDATIONS, _DATA_DOCS = "validations", "data_docs"
"""Folders of a month. Great Expectations keeps a result as validations/STAGE/FRAME/RUN/TIME/BATCH.json, its page likewise."""


@dataclass(frozen=True)
class ExpectationResult:
    """One expectation: what it is about, how it came out, what was seen and what was asked for."""

    expectation: str
    outcome: Outcome
    observed: str
    required: str


def stops(results: Iterable[ExpectationResult]) -> bool:
    """Return whether a gate with these results stays shut: something failed or errored."""
    return any(result.outcome in ("failed", "errored") for result in results)


def data_docs_page(gx_dir: Path, day: date) -> Path:
    """Return the index page of the Data Docs of the day's month."""
    return _month_dir(gx_dir, day) / _DATA_DOCS / "index.html"


def write_data_docs(gx_dir: Path) -> None:
    """Write the pages of all results that have none. What goes wrong is logged: pages decide nothing of a day."""
    for folder in sorted(gx_dir.resolve().glob("????-??")):
        runs = _runs_without_pages(folder)
        if not runs:
            continue
        try:
            context = _context(folder)
            keys = cast("list[ValidationResultIdentifier]", context.validation_results_store.list_keys())
            context.build_data_docs(resource_identifiers=[key for key in keys if key.run_id.run_name in runs])
        except Exception:
            _LOG.exception("the pages of Great Expectations in %s were not written", folder)


def _runs_without_pages(folder: Path) -> set[str]:
    """Return the names of a month's runs of which a result has no page, or one that the index was not written after."""
    results, pages = folder / _VALIDATIONS, folder / _DATA_DOCS / _VALIDATIONS
    index = folder / _DATA_DOCS / "index.html"
    written = {page.relative_to(pages).with_suffix(""): page.stat().st_mtime_ns for page in pages.rglob("*.html")}
    indexed = index.stat().st_mtime_ns if index.is_file() else -1
    names = (result.relative_to(results).with_suffix("") for result in results.rglob("*.json"))
    return {name.parts[-3] for name in names if not 0 <= written.get(name, -1) <= indexed}


def validate(
    frames: Mapping[str, pd.DataFrame],
    suites: Mapping[str, Sequence[Expectation]],
    *,
    gx_dir: Path,
    day: date,
    stage: Literal["validate_inputs", "validate_challenger"],
) -> list[ExpectationResult]:
    """Run each suite over the frame of its name; return a result per expectation, in their order, and keep the results.

    The pages of an earlier run are deleted; `write_data_docs` writes those of this one. A suite without a frame, or one
    Great Expectations gives no answer to, comes back as errored.
    """
    import great_expectations as gx
    from great_expectations.core.run_identifier import RunIdentifier

    run = RunIdentifier(run_name=f"{day}-{stage}", run_time=start_of(day))
    folder = _month_dir(gx_dir, day).resolve()
    context = _context(folder)
    for kept in (_VALIDATIONS, f"{_DATA_DOCS}/{_VALIDATIONS}"):  # an earlier run of the day may have had other suites
        for stale in (folder / kept).glob(f"*/*/{run.run_name}"):
            with suppress(FileNotFoundError):  # another process judges the same day
                shutil.rmtree(stale)
    # One for all frames: Great Expectations writes its whole configuration out for each that is added.
    data = (
        context.data_sources.add_pandas("day").add_dataframe_asset(stage).add_batch_definition_whole_dataframe("whole")
    )
    found: list[ExpectationResult] = []
    for name, expectations in suites.items():
        if not expectations:
            continue
        if name not in frames:
            found += [_errored(name, expectation, f"there is no frame {name}") for expectation in expectations]
            continue
        suite = context.suites.add(
            gx.ExpectationSuite(f"{stage}.{name}", expectations=[copy.copy(e) for e in expectations])
        )
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=data, suite=suite))
        answer = definition.run(batch_parameters={"dataframe": frames[name]}, run_id=run)
        answers = {result.expectation_config.id: result for result in answer.results if result.expectation_config}
        found += [
            _result(name, expectation, answers.get(expectation.id), frame=frames[name])
            for expectation in suite.expectations
        ]
    return found


def expectation_name(frame: str, expectation: Expectation) -> str:
    """Return how an expectation is written in gate_results: frame.type(column)."""
    column = expectation.configuration.kwargs.get("column", "")
    return f"{frame}.{expectation.expectation_type}({column})"


def required_of(expectation: Expectation) -> str:
    """Return what an expectation asks for, for example "column values to be in set: value_set=[0, 1]".

    A limit that is a setting has its name behind it: that of the expectation's meta data.
    """
    words = expectation.expectation_type.removeprefix("expect_").replace("_", " ")
    kwargs = expectation.configuration.kwargs
    limits = ", ".join(f"{name}={value}" for name, value in kwargs.items() if name not in ("column", "batch_id"))
    setting = (expectation.meta or {}).get("setting")
    return (f"{words}: {limits}" if limits else words) + (f" ({setting})" if setting else "")


def _result(
    name: str, expectation: Expectation, answer: ExpectationValidationResult | None, *, frame: pd.DataFrame
) -> ExpectationResult:
    if answer is None:
        return _errored(name, expectation, "Great Expectations gave no result")
    error = _error_of(answer.exception_info)
    if error is not None:
        return _errored(name, expectation, error)
    column = expectation.configuration.kwargs.get("column")
    is_figure = name in FRAMES_OF_FIGURES and column in frame
    return ExpectationResult(
        expectation=expectation_name(name, expectation),
        outcome="passed" if answer.success else "failed",
        observed=str(frame[column].iloc[0]) if is_figure else _observed(answer.to_json_dict()["result"]),
        required=required_of(expectation),
    )


def _errored(frame: str, expectation: Expectation, error: str) -> ExpectationResult:
    return ExpectationResult(expectation_name(frame, expectation), "errored", error, required_of(expectation))


def _error_of(exception_info: Mapping[str, Any] | None) -> str | None:
    """Return the error message; Great Expectations gives one record, or one for each metric it could not compute."""
    if not exception_info:
        return None
    nested = [entry for entry in exception_info.values() if isinstance(entry, Mapping)]
    for record in nested or [exception_info]:
        if record.get("raised_exception"):
            return str(record.get("exception_message") or "error without a message")
    return None


def _observed(result: Any) -> str:
    if "observed_value" in result:
        return str(result["observed_value"])
    text = f"{result.get('unexpected_count', 0)} of {result.get('element_count', 0)} rows"
    examples = result.get("partial_unexpected_list") or []
    return text + (": " + ", ".join(str(value) for value in examples[:_SHOWN_VALUES]) if examples else "")


def _month_dir(gx_dir: Path, day: date) -> Path:
    return gx_dir / f"{day:%Y-%m}"


def _context(folder: Path) -> EphemeralDataContext:
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)

    def in_memory(kind: str) -> dict[str, Any]:
        return {"class_name": kind, "store_backend": {"class_name": "InMemoryStoreBackend"}}

    def in_folder(name: str) -> dict[str, Any]:
        return {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder / name)}

    return gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(
            config_version=4.0,
            analytics_enabled=False,
            progress_bars=ProgressBarsConfig(globally=False),
            stores={
                "expectations_store": in_memory("ExpectationsStore"),
                "validation_definition_store": in_memory("ValidationDefinitionStore"),
                "checkpoint_store": in_memory("CheckpointStore"),
                "validation_results_store": {
                    "class_name": "ValidationResultsStore",
                    "store_backend": in_folder(_VALIDATIONS),
                },
            },
            expectations_store_name="expectations_store",
            validation_results_store_name="validation_results_store",
            checkpoint_store_name="checkpoint_store",
            data_docs_sites={
                "site": {
                    "class_name": "SiteBuilder",
                    "show_how_to_buttons": False,
                    "store_backend": in_folder(_DATA_DOCS),
                    "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                }
            },
        ),
    )
