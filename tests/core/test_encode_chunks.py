"""Encodes that are killed, resumed and shared: 2,500 short texts in three chunks, by a tiny random BERT."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bahe_tasks.config import EncoderConfig
from bahe_tasks.core import encoder as encoder_module
from bahe_tasks.core.encode_chunks import TEXTS_PER_CHUNK, ChunkFolder, chunks_of
from bahe_tasks.core.encoder import LostChunkError, encode_in_processes, encode_shard, encode_texts
from bahe_tasks.core.llm_split import UnsplittableArchitectureError
from bahe_tasks.core.text_encoder import TextEncoder

TEXTS = [f"{'word ' * (n % 7)}{n}" for n in range(2500)]
ENCODER = EncoderConfig(device="cpu", num_shallow_layers=2, tokens_per_batch=256)


@pytest.fixture(scope="module")
def undisturbed(llm) -> np.ndarray:
    return encode_texts(TEXTS, checkpoint_dir=llm, encoder=ENCODER)


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """The texts that went through the shallow layers of this process."""
    seen: list[str] = []
    encode = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: seen.extend(texts) or encode(self, texts))
    return seen


class Killed(BaseException):
    pass


def _kill_after(texts: int):
    def progress(done: int, _total: int) -> None:
        if done >= texts:
            raise Killed

    return progress


def _kill_an_encode(llm: Path, folder: Path, texts: list[str], *, after: int) -> None:
    with pytest.raises(Killed):
        encode_texts(texts, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=folder, progress=_kill_after(after))


def test_chunks_depend_on_the_set_of_texts_alone():
    order = np.random.default_rng(0).permutation(len(TEXTS))
    chunks = chunks_of(TEXTS)
    assert chunks_of([TEXTS[i] for i in order] + TEXTS[:100]) == chunks
    assert [len(chunk) for chunk in chunks] == [TEXTS_PER_CHUNK, TEXTS_PER_CHUNK, 2500 - 2 * TEXTS_PER_CHUNK]
    assert sorted(text for chunk in chunks for text in chunk) == sorted(TEXTS)


def test_a_killed_encode_resumes_without_its_finished_texts_and_gives_equal_bits(llm, undisturbed, encoded, tmp_path):
    _kill_an_encode(llm, tmp_path, TEXTS, after=2 * TEXTS_PER_CHUNK)
    before = list(encoded)
    encoded.clear()
    told: list[tuple[int, int]] = []
    resumed = encode_texts(
        TEXTS, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path, progress=lambda *of: told.append(of)
    )
    assert len(before) == 2 * TEXTS_PER_CHUNK
    assert sorted(before + encoded) == sorted(TEXTS)
    assert told == [(2500, 2500)]
    assert np.array_equal(resumed, undisturbed)


def test_a_chunk_that_vanished_is_told_with_what_to_do(llm, monkeypatch, tmp_path):
    monkeypatch.setattr(ChunkFolder, "write", lambda *_: None)
    with pytest.raises(LostChunkError, match=r"run the stage again; .* must share the home folder"):
        encode_texts(TEXTS[:2], checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path)


def test_an_encode_killed_after_its_last_chunk_reads_it_all_again(llm, undisturbed, encoded, tmp_path):
    _kill_an_encode(llm, tmp_path, TEXTS, after=2500)
    encoded.clear()
    again = encode_texts(TEXTS[::-1], checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path)
    assert not encoded
    assert np.array_equal(again[::-1], undisturbed)


@pytest.mark.parametrize("damage", ["cut off", "empty", "garbage", "of fewer texts", "only its half-written name"])
def test_a_chunk_file_that_is_not_whole_is_not_trusted(llm, undisturbed, encoded, tmp_path, damage):
    _kill_an_encode(llm, tmp_path, TEXTS, after=TEXTS_PER_CHUNK)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if damage == "of fewer texts":
        np.save(file, np.load(file)[:5])
    elif damage == "only its half-written name":
        file.rename(file.with_suffix(".writing"))
    else:
        file.write_bytes({"cut off": content[:-100], "empty": b"", "garbage": b"\0" * len(content)}[damage])
    encoded.clear()
    resumed = encode_texts(TEXTS, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path)
    assert len(encoded) == 2500
    assert np.array_equal(resumed, undisturbed)


def test_leftovers_of_another_set_or_setting_are_not_used(llm, undisturbed, encoded, tmp_path):
    _kill_an_encode(llm, tmp_path, TEXTS[:-1], after=2499)
    other = EncoderConfig(device="cpu", num_shallow_layers=2, tokens_per_batch=256, pooling="first")
    encode_texts(TEXTS, checkpoint_dir=llm, encoder=other, chunk_dir=tmp_path)
    encoded.clear()
    found = encode_texts(TEXTS, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path)
    unchanged = [
        c for c in chunks_of(TEXTS) if c in chunks_of(TEXTS[:-1])
    ]  # those before the missing text are the same
    assert sorted(encoded) == sorted(set(TEXTS) - {text for chunk in unchanged for text in chunk})
    assert np.array_equal(found, undisturbed)


def test_two_processes_encode_no_text_twice_and_give_the_bits_of_one(llm, undisturbed, encoded, tmp_path):
    told: list[tuple[int, int]] = []
    encode_in_processes(
        TEXTS,
        checkpoint_dir=llm,
        encoder=ENCODER,
        chunk_dir=tmp_path,
        world_size=2,
        progress=lambda *of: told.append(of),
    )
    folder = ChunkFolder(tmp_path, ENCODER, "cpu")
    assert sorted(tmp_path.iterdir()) == sorted(folder.file(chunk) for chunk in chunks_of(TEXTS))
    collected = encode_texts(TEXTS, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path)
    assert not encoded
    assert np.array_equal(collected, undisturbed)
    assert told[-1] == (2500, 2500)


def test_an_error_of_a_process_is_raised_with_its_name(tmp_path):
    with pytest.raises(UnsplittableArchitectureError):
        encode_in_processes(TEXTS, checkpoint_dir=tmp_path, encoder=ENCODER, chunk_dir=tmp_path, world_size=1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_every_chunk_belongs_to_one_rank_whatever_the_world_size(llm, undisturbed, encoded, tmp_path, world_size):
    for rank in reversed(range(world_size)):
        encode_shard(TEXTS, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path, rank=rank, world_size=world_size)
    assert sorted(encoded) == sorted(TEXTS)
    assert np.array_equal(encode_texts(TEXTS, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path), undisturbed)


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(llm, tmp_path, rank, world_size):
    with pytest.raises(ValueError, match="below world_size"):
        encode_shard(TEXTS, checkpoint_dir=llm, encoder=ENCODER, chunk_dir=tmp_path, rank=rank, world_size=world_size)


def test_several_gpus_each_get_a_process_as_far_as_there_are_chunks(monkeypatch, tmp_path):
    asked: list[int] = []
    monkeypatch.setattr(encoder_module, "pick_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(encoder_module, "encode_in_processes", lambda *_, world_size, **__: asked.append(world_size))
    monkeypatch.setattr(ChunkFolder, "read", lambda _, chunk: np.zeros((len(chunk), 32), np.float16))
    for texts in (TEXTS, TEXTS[:2000]):
        encode_texts(texts, checkpoint_dir=tmp_path, encoder=ENCODER, chunk_dir=tmp_path)
    assert asked == [3, 2]
