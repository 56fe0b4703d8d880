"""The encode stage killed in the middle: its table is written in one commit, its progress kept outside."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bahe_tasks.checkpoint import encoder_version
from bahe_tasks.config import Config, EncoderConfig
from bahe_tasks.core.text_encoder import TextEncoder
from bahe_tasks.stages import encode_behaviors
from bahe_tasks.stages.encode_behaviors import TextUnknownError, encode_missing, known_texts
from bahe_tasks.stores.delta_tables import read_table
from bahe_tasks.stores.delta_writes import append_rows

DAY = date(2024, 3, 1)
TEXTS = [f"text {n}" for n in range(1500)]
BEHAVIORS = pa.table({"behavior_key": [f"{n:064x}" for n in range(1500)], "text": TEXTS})


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(home=tmp_path / "home", encoder=EncoderConfig(num_shallow_layers=0, device="cpu"))


def _embeddings(config: Config) -> pa.Table:
    return read_table(config.tables_dir, "behavior_embeddings").sort_by("behavior_key")


def test_a_killed_stage_commits_nothing_and_the_next_one_goes_on_and_clears_up(config, tmp_path, monkeypatch):
    encoded: list[str] = []
    encode = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda self, texts: encoded.extend(texts) or encode(self, texts))

    def kill(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_missing(DAY, config, BEHAVIORS, progress=kill)
    assert 0 < len(encoded) < 1500
    chunk_dir = config.home / "work" / "encode" / encoder_version(config.encoder) / str(DAY)
    assert len(list(chunk_dir.iterdir())) == 1
    assert _embeddings(config).num_rows == 0

    assert encode_missing(DAY, config, BEHAVIORS) == 1500
    assert sorted(encoded) == sorted(TEXTS)  # none twice
    assert not chunk_dir.exists()

    undisturbed = Config(home=tmp_path / "undisturbed", encoder=config.encoder)
    encode_missing(DAY, undisturbed, BEHAVIORS)
    assert _embeddings(config).equals(_embeddings(undisturbed))


def test_what_a_run_left_that_was_killed_after_its_commit_is_cleared_up(config):
    few = BEHAVIORS.filter(pc.less(BEHAVIORS["text"], "text 11"))
    encode_missing(DAY, config, few)
    chunk_dir = config.home / "work" / "encode" / encoder_version(config.encoder) / str(DAY)
    chunk_dir.mkdir(parents=True)
    assert encode_missing(DAY, config, few) == 0
    assert not chunk_dir.exists()


def test_of_two_runs_at_once_one_encodes_and_the_other_finds_it_done(config, monkeypatch):
    encode = encode_behaviors.encode_texts
    monkeypatch.setattr(encode_behaviors, "encode_texts", lambda *a, **named: time.sleep(1) or encode(*a, **named))
    few, days = BEHAVIORS.slice(0, 5), (DAY, DAY + timedelta(days=1))
    with ThreadPoolExecutor(2) as pool:
        encoded = list(pool.map(lambda day: encode_missing(day, config, few), days))
    assert sorted(encoded) == [0, 5]
    assert _embeddings(config).num_rows == 5


def test_texts_are_those_of_the_keys_in_their_order(config):
    append_rows(config.tables_dir, "atomic_behaviors", BEHAVIORS, partitions={})
    keys = BEHAVIORS["behavior_key"].to_pylist()
    assert known_texts(config, [keys[7], keys[1200], keys[7]]) == ["text 7", "text 1200", "text 7"]
    with pytest.raises(TextUnknownError, match=f"1 behaviors have no text .* {'f' * 64}"):
        known_texts(config, [keys[7], "f" * 64])
