"""Real item titles where MovieTweetings is at hand, else synthetic ones."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import date
from pathlib import Path

import numpy as np

from bahe_tasks.sources.movietweetings import import_movietweetings
from bahe_tasks.sources.synthetic import synthesize

SHARED = Path(os.environ.get("BAHE_SHARED", Path(__file__).parents[3] / "shared"))
"""Folder with data/movietweetings."""


def item_titles(count: int, *, seed: int = 0) -> tuple[list[str], str]:
    """Return at most `count` distinct titles in an order drawn by `seed`, and the name of where they are from."""
    source = SHARED / "data" / "movietweetings"
    with tempfile.TemporaryDirectory(prefix="bahe-titles-") as scratch:
        landing = Path(scratch)
        if source.is_dir():
            day = date(2013, 6, 1)  # movies first rated before the day are landed too
            import_movietweetings(source, landing, first=day, last=day)
        else:
            synthesize(landing, days=1, users=max(count, 100), seed=seed, flaw_share=0.0)
        files = sorted((landing / "items").glob("dt=*/*.jsonl"))
        lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    titles = sorted({json.loads(line)["title"] for line in lines})
    order = np.random.default_rng(seed).permutation(len(titles))[:count]
    return [titles[n] for n in order], "movietweetings" if source.is_dir() else "synthetic"
