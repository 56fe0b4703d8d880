import dataclasses

import pytest
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.ctr_model import grow_model, new_model
from bahe_tasks.core.lora import NothingToAdaptError, has_lora, merge_lora
from bahe_tasks.core.model_files import load_model, save_model
from bahe_tasks.core.train import train

CPU = torch.device("cpu")


@pytest.fixture
def lora_spec(with_model):
    return with_model(deep_tuning="lora", lora_rank=2)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_new_adapter_changes_nothing_and_a_merged_one_neither(
    fill, family, tiny_split, with_model, tiny_rows, embeddings, batch_of
):
    plain_spec, lora_spec = with_model(), with_model(deep_tuning="lora", lora_rank=2)
    plain = new_model(plain_spec, tiny_split(family).deep, seed=3)
    model = new_model(lora_spec, tiny_split(family).deep, seed=3)
    batch = batch_of(tiny_rows, embeddings, lora_spec)
    with torch.inference_mode():
        assert has_lora(model.deep)
        torch.testing.assert_close(model.user_embedding(batch.users), plain.user_embedding(batch.users))
        adapted = fill(model).user_embedding(batch.users)
        assert not torch.allclose(adapted, plain.user_embedding(batch.users), atol=1e-2)
        merge_lora(model.deep)
        assert not has_lora(model.deep)
        torch.testing.assert_close(model.user_embedding(batch.users), adapted, rtol=1e-4, atol=1e-4)


def test_only_adapters_are_trained_in_the_deep_layers(lora_spec, tiny_split, tiny_rows, embeddings):
    model = new_model(lora_spec, tiny_split().deep, seed=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, tiny_rows, embeddings, training=TrainingConfig(batch_size=4), seed=1, device=CPU)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in moved if name.startswith("deep.")} == {n for n in before if ".lora_B." in n} | {
        n for n in moved if ".lora_A." in n
    }
    assert any(".lora_B." in name for name in moved)
    assert any(name.startswith("head.") for name in moved)


def test_a_version_is_stored_with_its_adapters_and_served_merged(
    fill, tmp_path, lora_spec, tiny_split, tiny_rows, embeddings, batch_of
):
    model = fill(new_model(lora_spec, tiny_split().deep, seed=3))
    save_model(model, lora_spec, tmp_path)
    batch = batch_of(tiny_rows, embeddings, lora_spec)
    to_train, served = load_model(tmp_path, to_train=True)[0], load_model(tmp_path)[0]
    assert (has_lora(to_train.deep), has_lora(served.deep)) == (True, False)
    with torch.inference_mode():
        assert torch.equal(to_train(batch), model(batch))
        torch.testing.assert_close(served(batch), model(batch), rtol=1e-4, atol=1e-4)
        child = grow_model(to_train, lora_spec.grown(cat_columns=["brand"]), seed=1)
        torch.testing.assert_close(child(batch_of(tiny_rows, embeddings, child.spec)), model(batch))


def test_deep_layers_without_a_linear_map_are_refused(lora_spec, tiny_split):
    with pytest.raises(NothingToAdaptError, match=r"encoder\.num_shallow_layers"):
        new_model(lora_spec, tiny_split("bert", num_shallow_layers=3).deep, seed=1)


def test_another_dropout_before_the_adapters_holds_from_the_next_day_on(lora_spec, tiny_split):
    parent = new_model(lora_spec, tiny_split().deep, seed=1)
    changed = dataclasses.replace(lora_spec, model=dataclasses.replace(lora_spec.model, lora_dropout=0.5))
    child = grow_model(parent, changed, seed=1)
    rates = {module.p for name, module in child.deep.named_modules() if name.endswith("lora_dropout.default")}
    assert rates == {0.5}
