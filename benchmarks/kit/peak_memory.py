"""How much a process grows while something runs."""

from __future__ import annotations

import threading

import psutil

_SAMPLE_EVERY_S = 0.02


class PeakMemory:
    """Context that samples the resident memory of this process; `grown_mb` is the peak above the start, in MB."""

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process()
        self._start = self._peak = self._process.memory_info().rss
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._sampler.join()

    @property
    def grown_mb(self) -> float:
        return (self._peak - self._start) / 1e6

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            self._peak = max(self._peak, self._process.memory_info().rss)
