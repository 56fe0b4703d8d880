import dataclasses

import numpy as np
import pytest
import torch

from bahe_tasks.config import TrainingConfig
from bahe_tasks.core.columns import NumStatistics
from bahe_tasks.core.ctr_model import grow_model, new_model
from bahe_tasks.core.train import train


@pytest.fixture
def grown_spec(tiny_spec):
    return tiny_spec.grown(features=["clicks"], cat_columns=["brand"], num_statistics={"age": NumStatistics(30.0, 5.0)})


@pytest.fixture
def rows_with_more(tiny_rows, make_histories):
    """The same impressions with a text feature and two columns more."""
    clicks = make_histories([1, 2, 3] * 3, rng=np.random.default_rng(7), num_embeddings=40)
    return dataclasses.replace(
        tiny_rows,
        histories={**tiny_rows.histories, "clicks": clicks},
        cat={**tiny_rows.cat, "brand": np.array(["b1", "b2", None] * 3, object)},
        num={**tiny_rows.num, "age": np.linspace(20, 40, 9)},
    )


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2", "din"])
def test_a_grown_model_gives_the_parents_outputs(
    head, with_model, tiny_split, fill, tiny_rows, rows_with_more, embeddings, batch_of
):
    spec = with_model(head=head)
    parent = fill(new_model(spec, tiny_split().deep, seed=3))
    torch.nn.init.zeros_(parent.text_ids.table.weight)  # what other features taught of a text is read of a new one too
    grown = spec.grown(
        features=["clicks"],
        cat_columns=["brand"],
        num_statistics={"age": NumStatistics(30.0, 5.0)},
        extra_labels=["paid"],
    )
    with torch.inference_mode():
        before = parent(batch_of(tiny_rows, embeddings, spec))
        child = grow_model(parent, grown, seed=1)
        for rows in (tiny_rows, rows_with_more):
            after = child(batch_of(rows, embeddings, grown))
            assert after.shape == (9, 2)
            torch.testing.assert_close(after[:, :1], before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2", "din"])
def test_every_new_input_of_every_head_gets_a_gradient(
    head, with_model, tiny_split, fill, rows_with_more, embeddings, batch_of
):
    spec = with_model(head=head)
    grown = spec.grown(features=["clicks"], cat_columns=["brand"], num_statistics={"age": NumStatistics(30.0, 5.0)})
    child = grow_model(fill(new_model(spec, tiny_split().deep, seed=3)), grown, seed=1)
    child(batch_of(rows_with_more, embeddings, grown)).sum().backward()
    entry = "head.vectors" if head == "dcn_v2" else "head.tower.entry.blocks"
    entries = [f"{entry}.{field}.weight" for field in ("user:clicks", "product:clicks", "num:age")]
    entries += [f"{entry.replace('vectors', 'factors')}.{field}:clicks.weight" for field in ("met", "extent")]
    for name in [*entries, "columns.tables.cat:brand.weight", "text_ids.table.weight"]:
        assert child.get_parameter(name).grad.to_dense().any(), name


def test_training_makes_the_new_inputs_matter(tiny_model, grown_spec, rows_with_more, tiny_rows, embeddings, batch_of):
    child = grow_model(tiny_model, grown_spec, seed=1)
    training = TrainingConfig(epochs=3, batch_size=3, head_learning_rate=0.01)
    train(child, rows_with_more, embeddings, training=training, seed=1, device=torch.device("cpu"))
    for key in ("user:clicks", "product:clicks", "num:age"):
        assert child.head.vectors[key].weight.abs().max() > 0
    assert child.head.factors["met:clicks"].weight.abs().max() > 0
    assert child.columns.tables["cat:brand"].weight.abs().max() > 0
    with torch.inference_mode():
        with_more, without = (child(batch_of(r, embeddings, grown_spec)) for r in (rows_with_more, tiny_rows))
    assert not torch.allclose(with_more, without)


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2"])
def test_ids_of_a_new_feature_s_texts_are_learned(head, tiny_split, with_model, rows_with_more, embeddings):
    """Texts that no other feature and no title has, in a table that nothing has been learned in."""
    clicks = dataclasses.replace(rows_with_more.histories["clicks"])
    others = {
        name: dataclasses.replace(h, behavior_rows=h.behavior_rows % 20) for name, h in rows_with_more.histories.items()
    }
    histories = {**others, "clicks": dataclasses.replace(clicks, behavior_rows=20 + clicks.behavior_rows % 20)}
    rows = dataclasses.replace(rows_with_more, histories=histories, title_rows=rows_with_more.title_rows % 20)
    spec = with_model(head=head, hash_buckets=65536)
    child = grow_model(new_model(spec, tiny_split().deep, seed=3), spec.grown(features=["clicks"]), seed=1)
    train(child, rows, embeddings, training=TrainingConfig(epochs=3, batch_size=3), seed=1, device=torch.device("cpu"))
    assert child.text_ids(torch.from_numpy(embeddings[histories["clicks"].behavior_rows])).any(1).all()


def test_numeric_statistics_travel_with_the_version(tiny_model, tiny_spec, embeddings, batch_of, make_rows):
    cheap = make_rows({"bills": [1, 2], "visits": [0, 1]}, seed=3)
    dear = dataclasses.replace(cheap, num={"price": cheap.num["price"] + 1000})
    child_spec = tiny_spec.grown(num_statistics={"price": NumStatistics(1010.0, 4.0)})
    child = grow_model(tiny_model, child_spec, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(
            child(batch_of(dear, embeddings, child_spec)), tiny_model(batch_of(dear, embeddings, tiny_spec))
        )
