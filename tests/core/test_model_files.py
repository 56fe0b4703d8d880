import dataclasses
import json

import pytest
import torch

from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.model_files import DamagedModelError, ModelFilesError, load_model, load_optimizer_state, save_model
from bahe_tasks.core.model_spec import ModelMismatchError
from bahe_tasks.core.point_in_time import NUMBERS


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path, tiny_split, tiny_spec, tiny_rows, embeddings, family, batch_of):
    split = tiny_split(family)
    model = new_model(tiny_spec, split.deep, seed=2)
    spec = tiny_spec.__class__(**{**tiny_spec.__dict__, "llm_config": split.llm_config})
    save_model(model, spec, tmp_path / "v1")
    loaded, loaded_spec = load_model(tmp_path / "v1")
    assert loaded_spec == spec
    assert not loaded.training
    with torch.inference_mode():
        expected, got = (m(batch_of(tiny_rows, embeddings, spec)) for m in (model, loaded))
    assert torch.equal(expected, got)


def test_only_the_deep_layers_are_stored(tmp_path, tiny_model, tiny_spec):
    save_model(tiny_model, tiny_spec, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "model_spec.json"]
    names = load_model(tmp_path)[0].state_dict().keys()
    assert {name.split(".")[4] for name in names if name.startswith("deep.llm.encoder.layer")} == {"0", "1"}
    assert not [name for name in names if "word_embeddings" in name]


def test_a_model_of_other_numbers_is_refused_in_words(tmp_path, tiny_split, tiny_spec):
    spec = dataclasses.replace(tiny_spec, numbers=NUMBERS)
    save_model(new_model(spec, tiny_split().deep, seed=2), spec, tmp_path)
    load_model(tmp_path)
    document = json.loads((tmp_path / "model_spec.json").read_text())
    (tmp_path / "model_spec.json").write_text(json.dumps({**document, "numbers": list(NUMBERS[:-2])}))
    with pytest.raises(ModelMismatchError, match="other point-in-time numbers"):
        load_model(tmp_path)


def test_a_missing_file_is_a_named_error(tmp_path):
    with pytest.raises(ModelFilesError, match=r"model\.safetensors is missing"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_the_spec_are_a_named_error(tmp_path, tiny_model, tiny_spec):
    save_model(tiny_model, tiny_spec, tmp_path)
    document = json.loads((tmp_path / "model_spec.json").read_text())
    (tmp_path / "model_spec.json").write_text(json.dumps({**document, "features": ["bills"]}))
    with pytest.raises(ModelFilesError, match="do not fit"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model_spec.json", "optimizer.safetensors"])
@pytest.mark.parametrize("left", [0, 5, -9])
def test_a_file_that_was_cut_short_is_named_with_what_to_do(tmp_path, tiny_model, tiny_spec, name, left):
    save_model(tiny_model, tiny_spec, tmp_path, optimizer_state={"of/a": torch.zeros(99)})
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:left])
    with pytest.raises(DamagedModelError) as error:
        load_optimizer_state(tmp_path) if name.startswith("optimizer") else load_model(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / name} is damaged (")
    assert "restore it from a copy" in str(error.value)
    assert "run-day DAY --force" in str(error.value)
