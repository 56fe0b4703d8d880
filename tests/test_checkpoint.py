import json
from dataclasses import replace

import pytest

from bahe_tasks.checkpoint import CheckpointNotFoundError, checkpoint_dir, embedding_width, encoder_version
from bahe_tasks.config import EncoderConfig
from bahe_tasks.config_checks import ConfigError


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def test_the_default_checkpoint_comes_with_its_package():
    assert (checkpoint_dir("all-MiniLM-L6-v2") / "model.safetensors").is_file()


def test_a_path_without_a_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointNotFoundError, match="nowhere"):
        checkpoint_dir(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "change",
    [
        {"num_shallow_layers": 2},
        {"pooling": "last"},
        {"prompt": "user did: {text}"},
        {"max_tokens_per_behavior": 16},
        {"compute_dtype": "bfloat16"},
    ],
)
def test_every_setting_that_decides_an_embedding_changes_the_version(checkpoint, change):
    encoder = EncoderConfig(checkpoint=str(checkpoint))
    assert encoder_version(replace(encoder, **change)) != encoder_version(encoder)


@pytest.mark.parametrize("change", [{"device": "cpu"}, {"tokens_per_batch": 64}])
def test_how_it_is_computed_does_not_change_the_version(checkpoint, change):
    encoder = EncoderConfig(checkpoint=str(checkpoint))
    assert encoder_version(replace(encoder, **change)) == encoder_version(encoder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_other_weights_or_another_tokenizer_change_the_version(checkpoint, name):
    encoder = EncoderConfig(checkpoint=str(checkpoint))
    before = encoder_version(encoder)
    (checkpoint / name).write_bytes(b"other")
    encoder_version.cache_clear()
    assert encoder_version(encoder) != before


@pytest.mark.parametrize(
    "document", [{"num_hidden_layers": 4}, {"n_layer": 4}, {"text_config": {"num_hidden_layers": 4}, "num_layers": 99}]
)
def test_more_shallow_layers_than_there_are_is_wrong_use_before_anything_is_read(checkpoint, document):
    (checkpoint / "config.json").write_text(json.dumps(document))
    encoder = EncoderConfig(checkpoint=str(checkpoint), num_shallow_layers=4)
    assert encoder_version(encoder).startswith("enc-")
    with pytest.raises(ConfigError, match=r"encoder\.num_shallow_layers must be at most 4, the layers of .*, not 5"):
        encoder_version(replace(encoder, num_shallow_layers=5))


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointNotFoundError, match="no weights"):
        encoder_version(EncoderConfig(checkpoint=str(tmp_path)))


def test_the_width_of_an_embedding_stands_in_the_checkpoint():
    assert embedding_width("all-MiniLM-L6-v2") == 384  # the model's name says MiniLM-L6-H384
