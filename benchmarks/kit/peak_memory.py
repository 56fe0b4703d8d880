"""How much a process grows while something runs. No package beyond torch is needed where /proc is (GPU machines)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import torch

_SAMPLE_EVERY_S = 0.01
_STATM = Path("/proc/self/statm")


class PeakMemory:
    """Context in which memory is watched; `grown_mb` is the peak above the start, in MB.

    On a CUDA device it is what torch has allocated there, exactly; else the resident memory of this process, sampled.
    Without `count_files` pages of mapped files are left out, where /proc is: the system drops them when it needs room.
    """

    def __init__(self, device: torch.device | None = None, *, count_files: bool = True) -> None:
        self._count_files = count_files
        self._device = device if device is not None and device.type == "cuda" else None

    def __enter__(self) -> PeakMemory:
        if self._device is not None:
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = self._peak = torch.cuda.memory_allocated(self._device)
            return self
        self._start = self._peak = _resident_bytes(count_files=self._count_files)
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._device is not None:
            self._peak = torch.cuda.max_memory_allocated(self._device)
            return
        self._over.set()
        self._sampler.join()

    @property
    def grown_mb(self) -> float:
        return (self._peak - self._start) / 1e6

    @property
    def peak_mb(self) -> float:
        return self._peak / 1e6

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY_S):
            self._peak = max(self._peak, _resident_bytes(count_files=self._count_files))


def _resident_bytes(*, count_files: bool) -> int:
    if _STATM.exists():
        resident, of_files = map(int, _STATM.read_text().split()[1:3])
        return (resident if count_files else resident - of_files) * os.sysconf("SC_PAGE_SIZE")
    import psutil

    return psutil.Process().memory_info().rss
