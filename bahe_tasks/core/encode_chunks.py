"""Progress of an encode in files, so that one that was killed goes on, and several processes share one.

Chunks are a fixed function of the set of texts: the distinct ones sorted by length, then by text, a fixed number in
each. A file is named by the hash of its texts and of the encoder's settings: chunks of another set or setting are
never taken for it. It appears under its name whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bahe_tasks.config import EncoderConfig
from bahe_tasks.fingerprint import fingerprint

TEXTS_PER_CHUNK = 1024
"""About two seconds of MiniLM on one core, which is what a kill costs at most."""


def chunks_of(texts: Iterable[str]) -> list[list[str]]:
    """Return the distinct texts in chunks; the same set gives the same chunks in whatever order it comes."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    return [distinct[start : start + TEXTS_PER_CHUNK] for start in range(0, len(distinct), TEXTS_PER_CHUNK)]


@dataclass(frozen=True)
class ChunkFolder:
    """Files of finished chunks under one encoder_version, computed on one type of device."""

    folder: Path
    encoder: EncoderConfig
    device_type: str

    def file(self, chunk: Sequence[str]) -> Path:
        """Return where the chunk's embeddings are, once they are finished."""
        name = fingerprint(texts=list(chunk), encoder=self.encoder, device=self.device_type)
        return self.folder / f"{name}.npy"

    def read(self, chunk: Sequence[str]) -> np.ndarray | None:
        """Return the chunk's embeddings, (len(chunk), H) float16, or None where there is no whole file of them."""
        try:
            vectors = np.load(self.file(chunk), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        is_whole = vectors.dtype == np.float16 and vectors.ndim == 2 and len(vectors) == len(chunk)
        return vectors if is_whole else None

    def write(self, chunk: Sequence[str], vectors: np.ndarray) -> None:
        """Keep the chunk's embeddings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.file(chunk)
        half = file.with_suffix(".writing")
        with half.open("wb") as out:
            np.save(out, vectors)
            out.flush()
            os.fsync(out.fileno())  # else a power cut may leave a file of the right length without its content
        os.replace(half, file)
