"""What every benchmark prints: {"benchmark", "figures": {name: number}, "rows": [...], "machine": {...}} with `--json`.

A number that does not exist (an AUC of one class, an interval of one user) is null there, and a line on stderr names such figures.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from bahe_tasks.json_values import with_nulls


@dataclass
class Document:
    """Figures and rows of one benchmark run."""

    benchmark: str
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def show(self, *, as_json: bool) -> None:
        """Print the document, or a table of the rows and the figures for a person."""
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:  # a bare GPU machine
            as_json = True
        absent = [name for name, value in self.figures.items() if not math.isfinite(value)]
        if absent:
            print(f"no number on these rows: {', '.join(absent)}", file=sys.stderr)
        if as_json:
            print(json.dumps(with_nulls({**vars(self), "machine": machine()}), indent=1, allow_nan=False))
            return
        out = Console()
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        by_name = [[name, *(_cell(row.get(name, "")) for row in self.rows)] for name in names]
        by_row = [list(cells) for cells in zip(*by_name, strict=True)]
        table = Table(title=self.benchmark, show_header=False)
        if _width(by_name) <= max(out.width, _width(by_row)):
            table.show_header = True
            for name in names:
                table.add_column(name)
            by_name = by_row[1:]
        for cells in by_name:  # else a line a name
            table.add_row(*cells)
        out.print(table)
        for name, value in self.figures.items():
            out.print(f"{name}: {value:.4g}")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _width(columns: list[list[str]]) -> int:
    """Return how wide a table of these columns is."""
    return sum(max(map(len, column)) + 3 for column in columns) + 1


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, GPU, versions."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "numpy")},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
