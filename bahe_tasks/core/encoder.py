"""Behavior embeddings: the frozen shallow layers over each distinct text, pooled to one vector (paper, section 2).

Unusual: what is computed together depends on the set of texts alone, not on the order they arrive in, on earlier kills
or on how many processes share the work, so encoding the same set again gives equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core.device import pick_device
from bahe_tasks.core.encode_chunks import ChunkFolder, chunks_of
from bahe_tasks.core.launched import launched_processes, run_shared
from bahe_tasks.core.text_encoder import TextEncoder

Progress = Callable[[int, int], None]
_SECONDS_BETWEEN_PROGRESS = 1.0


class LostChunkError(RuntimeError):
    """A finished chunk that is not where it was written; an encode that is run again makes it."""


def encode_texts(
    texts: Sequence[str],
    *,
    checkpoint_dir: Path,
    encoder: EncoderConfig,
    chunk_dir: Path | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the behavior embedding of each text, in the order given: (M, H) float16.

    A text repeated in `texts` is computed once. `chunk_dir` (one for each encoder_version) keeps finished chunks: an
    encode that was killed goes on from there, and several GPUs share the work; the caller removes it. `progress` is
    called with the distinct texts done and their total. Raises what `TextEncoder` raises, and `LostChunkError`.
    """
    chunks = chunks_of(texts)
    device = pick_device(encoder.device)
    if chunk_dir is None or not chunks:
        text_encoder = TextEncoder(checkpoint_dir, encoder, device=device)
        found = [np.zeros((0, text_encoder.width), np.float16)]
        for n, chunk in enumerate(chunks):
            found.append(text_encoder.encode(chunk))
            _tell(progress, range(n + 1), chunks)
    else:
        gpus = torch.cuda.device_count() if device.type == "cuda" else 1
        processes = launched_processes() or min(len(chunks), gpus)
        shard = encode_shard if processes == 1 else encode_in_processes
        shard(
            texts,
            checkpoint_dir=checkpoint_dir,
            encoder=encoder,
            chunk_dir=chunk_dir,
            world_size=processes,
            progress=progress,
        )
        folder = ChunkFolder(chunk_dir, encoder, device.type)
        found = [_require(folder, chunk) for chunk in chunks]
    row_of = {text: row for row, text in enumerate(text for chunk in chunks for text in chunk)}
    return np.concatenate(found)[np.array([row_of[text] for text in texts], np.int64)]


def encode_by_whole_llm(texts: Sequence[str], *, checkpoint_dir: Path, encoder: EncoderConfig) -> np.ndarray:
    """Return what all layers of the LLM make of each text, its last hidden states pooled as behavior embeddings are: (M, H) float16.

    Raises what `TextEncoder` raises.
    """
    device = pick_device(encoder.device)
    return TextEncoder(checkpoint_dir, encoder, device=device, whole=True).encode(texts)


def encode_shard(
    texts: Sequence[str],
    *,
    checkpoint_dir: Path,
    encoder: EncoderConfig,
    chunk_dir: Path,
    rank: int = 0,
    world_size: int = 1,
    progress: Progress | None = None,
) -> None:
    """Finish chunks `rank`, `rank` + `world_size`, … of the texts in `chunk_dir`; those finished before are left alone.

    Each of several GPUs has its rank's. The ranks of one encode need no word with each other: its chunks are complete
    when every rank has returned. Raises what `TextEncoder` raises.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}, but it must be at least 0 and below world_size, {world_size}")
    device = pick_device(encoder.device)
    folder = ChunkFolder(chunk_dir, encoder, device.type)
    if device.type == "cuda":
        device = torch.device("cuda", rank % torch.cuda.device_count())
    chunks = chunks_of(texts)[rank::world_size]
    done = [n for n, chunk in enumerate(chunks) if folder.read(chunk) is not None]
    missing = sorted(set(range(len(chunks))) - set(done))
    if not missing:
        return
    text_encoder = TextEncoder(checkpoint_dir, encoder, device=device)
    for n in missing:
        folder.write(chunks[n], text_encoder.encode(chunks[n]))
        done.append(n)
        _tell(progress, done, chunks)


def encode_in_processes(
    texts: Sequence[str],
    *,
    checkpoint_dir: Path,
    encoder: EncoderConfig,
    chunk_dir: Path,
    world_size: int,
    progress: Progress | None = None,
) -> None:
    """Run every rank of `encode_shard` in a process of its own. Raises what they raise."""
    folder = ChunkFolder(chunk_dir, encoder, pick_device(encoder.device).type)
    chunks = chunks_of(texts)
    files = [folder.file(chunk) for chunk in chunks]
    run_shared(
        _run_rank,
        (world_size, list(texts), checkpoint_dir, encoder, chunk_dir),
        count=world_size,
        meanwhile=lambda: _tell(progress, [n for n, file in enumerate(files) if file.exists()], chunks),
    )
    _tell(progress, range(len(chunks)), chunks)


def _run_rank(
    rank: int, world_size: int, texts: list[str], checkpoint_dir: Path, encoder: EncoderConfig, chunk_dir: Path
) -> None:
    encode_shard(
        texts,
        checkpoint_dir=checkpoint_dir,
        encoder=encoder,
        chunk_dir=chunk_dir,
        rank=rank,
        world_size=world_size,
    )


def _tell(progress: Progress | None, done: Iterable[int], chunks: Sequence[Sequence[str]]) -> None:
    if progress is not None:
        progress(sum(len(chunks[n]) for n in done), sum(map(len, chunks)))


def _require(folder: ChunkFolder, chunk: Sequence[str]) -> np.ndarray:
    vectors = folder.read(chunk)
    if vectors is None:
        raise LostChunkError(
            f"{folder.file(chunk)} is not there, or not whole, after its encode: where another run removed it, "
            "run the stage again; processes that torchrun starts on several hosts must share the home folder"
        )
    return vectors
