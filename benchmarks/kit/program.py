"""What the benchmark programs that must run on a bare GPU machine share: arguments without typer, and waiting for a GPU."""

from __future__ import annotations

import argparse

import torch


def benchmark_arguments(description: str | None, *, small: str) -> argparse.ArgumentParser:
    """Return a parser of `--json` and `--small`; `small` says what that does."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--small", action="store_true", help=small)
    return parser


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
