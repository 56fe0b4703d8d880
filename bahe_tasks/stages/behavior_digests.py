"""Behavior keys as the 32 bytes of their sha256: sorted sets of them in files, and where in a set a key stands.

Unusual: keys are sorted and searched by their first 8 bytes as one number, their head, which is many times as fast as
by all bytes. Two keys that share a head, which no log has shown yet, are told apart the slow way.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from bahe_tasks.behavior_key import KEY_DIGITS
from bahe_tasks.stores.mapped_arrays import map_array

DIGEST, HEAD = "S32", "<u8"
_BUCKET_BITS = 6


class NotABehaviorKeyError(ValueError):
    """A key that is not 64 hex digits."""


@dataclass(frozen=True)
class DigestSet:
    """M sorted distinct digests (M,) S32, and their heads (M,) uint64."""

    digests: np.ndarray
    heads: np.ndarray

    def rows_of(self, digests: np.ndarray) -> np.ndarray:
        """Return the row of each digest (K,) S32, int64; -1 where it is not in the set."""
        found = np.full(len(digests), -1, np.int64)
        if len(self.heads):
            heads = heads_of(digests)
            order = np.argsort(heads)  # a search for what comes next in order finds it in the processor's caches
            rows = np.empty(len(heads), np.int64)
            rows[order] = np.minimum(np.searchsorted(self.heads, heads[order]), len(self.heads) - 1)
            likely = np.flatnonzero(self.heads[rows] == heads)
            same = self.digests[rows[likely]] == digests[likely]
            found[likely[same]] = rows[likely[same]]
            for k in likely[~same]:  # another digest has this head
                row = int(np.searchsorted(self.digests, digests[k]))
                if row < len(self.digests) and self.digests[row] == digests[k]:
                    found[k] = row
        return found


def digest_set(digests: np.ndarray) -> DigestSet:
    """Return the set of these digests, in memory."""
    distinct = sorted_distinct(digests)
    return DigestSet(distinct, heads_of(distinct))


def digests_of(keys: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return the digests of the keys that are not null, in order, (K,) S32. Raises `NotABehaviorKeyError`."""
    chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
    return np.concatenate([np.zeros(0, DIGEST), *(_digests(chunk.drop_null()) for chunk in chunks)])


def _digests(keys: pa.Array) -> np.ndarray:
    if not len(keys):
        return np.zeros(0, DIGEST)
    offsets = np.frombuffer(keys.buffers()[1], np.int32)[keys.offset : keys.offset + len(keys) + 1]
    try:
        if (np.diff(offsets) != KEY_DIGITS).any():
            raise binascii.Error("another length")
        return np.frombuffer(binascii.unhexlify(keys.buffers()[2][offsets[0] : offsets[-1]]), DIGEST)
    except binascii.Error as error:
        raise NotABehaviorKeyError(
            f"behavior keys must be {KEY_DIGITS} hex digits, as {keys[0]} is not: {error}"
        ) from error


def keys_of(digests: np.ndarray) -> list[str]:
    """Return the keys of digests."""
    return [bytes(row).hex() for row in np.ascontiguousarray(digests).view("u1").reshape(-1, 32)]


def heads_of(digests: np.ndarray) -> np.ndarray:
    """Return the first 8 bytes of each digest as a number that sorts as they do, (K,) uint64."""
    return np.ascontiguousarray(digests).view(">u8")[::4].astype(HEAD)


def sorted_distinct(digests: np.ndarray) -> np.ndarray:
    """Return the distinct digests in order."""
    heads = heads_of(digests)
    order = np.argsort(heads)
    heads, digests = heads[order], digests[order]
    repeats = digests[1:] == digests[:-1]
    if (heads[1:] == heads[:-1])[~repeats].any():  # two digests share a head
        return np.unique(digests)
    return digests[np.append(True, ~repeats)] if len(digests) else digests


def write_distinct(parts: Iterable[np.ndarray], folder: Path) -> int:
    """Write the distinct digests of all parts, sorted, and their heads, to files in the folder; return how many.

    Held in memory at a time: one part, or a 64th of all.
    """
    buckets = [folder / f"{b}.bucket" for b in range(1 << _BUCKET_BITS)]
    with ExitStack() as stack:
        files = [stack.enter_context(bucket.open("wb")) for bucket in buckets]
        for part in parts:
            distinct = sorted_distinct(part)
            bounds = np.searchsorted(heads_of(distinct) >> np.uint64(64 - _BUCKET_BITS), np.arange(len(files) + 1))
            for file, start, end in zip(files, bounds[:-1], bounds[1:], strict=True):
                distinct[start:end].tofile(file)
    count = 0
    with (folder / "digests").open("wb") as digests, (folder / "heads").open("wb") as heads:
        for bucket in buckets:
            distinct = sorted_distinct(np.fromfile(bucket, DIGEST))
            distinct.tofile(digests)
            heads_of(distinct).tofile(heads)
            count += len(distinct)
            bucket.unlink()
    return count


def map_digests(folder: Path, count: int) -> DigestSet:
    """Return the set that `write_distinct` wrote, in mapped memory. Raises `CutShortError` and `OSError`."""
    return DigestSet(map_array(folder / "digests", DIGEST, (count,)), map_array(folder / "heads", HEAD, (count,)))
