"""Each head against a plain reference over the concatenated fields, written here from its paper."""

import dataclasses

import pytest
import torch
from torch.nn.functional import silu

from bahe_tasks.core.ctr_model import new_model
from bahe_tasks.core.head_fields import (
    ColumnFields,
    FieldLinear,
    FieldMaps,
    embedding_fields,
    embedding_parts,
    field_sizes,
)
from bahe_tasks.core.heads import HEADS, label_key
from bahe_tasks.core.kept_weights import weights_kept
from bahe_tasks.core.user_fields import EmbeddingParts

LABELS = ("label", "paid")
PARTS = EmbeddingParts(deep=32, topics=4, text_id=3, extent=1)
HISTORY = PARTS.of_history


def inputs(num_rows=6):
    generator = torch.Generator().manual_seed(4)
    user, item = (torch.rand(num_rows, width, generator=generator) for width in (2 * PARTS.of_history, PARTS.of_item))
    cat = torch.randint(0, 513, (num_rows, 3), generator=generator)
    num = torch.tensor([[0.5], [float("nan")], [-1.0], [0.0], [2.0], [float("nan")]])
    return user, item, cat, num


@pytest.fixture
def fields(tiny_model):
    user, item, cat, num = inputs()
    return embedding_fields(("bills", "visits"), user, item, parts=PARTS) | tiny_model.columns(cat, num)


@pytest.fixture
def head_of(with_model):
    """(name, sizes of further fields) → the head over the tiny spec's fields, for two labels, every weight filled."""

    def build(name, further=None):
        torch.manual_seed(2)
        spec = with_model(head=name)
        head = HEADS[name](field_sizes(spec, width=32) | (further or {}), LABELS, spec.model).eval()
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, 0, 0.3)
        return head

    return build


def concatenated(maps: FieldMaps):
    """The weight (out, all widths) of the one linear map that a map of fields stands for."""
    return torch.cat([maps[name].weight for name in maps.names], 1)


def together(fields, names):
    return torch.cat([fields[name] for name in names], 1)


def mlp(tower, fields):
    entry, last = tower.entry, tower.layers[2]
    hidden = silu(together(fields, entry.blocks.names) @ concatenated(entry.blocks).T + entry.bias)
    return silu(hidden @ last.weight.T + last.bias)


def outputs(head, shared):
    return torch.cat(
        [shared @ head.outputs[label_key(label)].weight.T + head.outputs[label_key(label)].bias for label in LABELS], 1
    )


def test_fields_are_item_user_products_and_columns(fields, tiny_model, tiny_spec):
    user, item, cat, num = inputs()
    assert {name: field.shape[1] for name, field in fields.items()} == field_sizes(tiny_spec, width=32)
    assert torch.equal(fields["product:visits"], user[:, HISTORY : HISTORY + 36] * item[:, :36])
    common = (user[:, HISTORY + 32 : HISTORY + 36] * item[:, 32:36]).sum(1)
    torch.testing.assert_close(fields["met:visits"][:, 0], (4 * common).log() / 2)
    assert torch.equal(fields["text_id:visits"], user[:, HISTORY + 36 : -1])
    assert torch.equal(fields["extent:visits"], user[:, -1:])
    assert torch.equal(fields["text_id"], item[:, 36:])
    assert torch.equal(fields["cat:genre"], tiny_model.columns.tables["cat:genre"].weight[cat[:, 2]])
    presence = torch.stack([num.nan_to_num(0.0)[:, 0], (~num.isnan())[:, 0].float()], 1)
    assert torch.equal(fields["num:price"], presence)


def test_a_text_feature_may_have_any_name(tiny_spec):
    named = dataclasses.replace(tiny_spec, features=("item", "text_id"))
    user, item, _, _ = inputs()
    fields = embedding_fields(named.features, user, item, parts=embedding_parts(named, width=32))
    assert fields.keys() <= field_sizes(named, width=32).keys()
    assert (
        len(fields) == 1 + 4 * 2 + 3
    )  # item; user, product, met and extent each; ids of the title and of either feature
    assert torch.equal(fields["text_id"], item[:, 36:])
    assert torch.equal(fields["text_id:item"], user[:, 36 : HISTORY - 1])
    assert torch.equal(fields["text_id:text_id"], user[:, HISTORY + 36 : -1])


def test_mlp_equals_an_mlp_over_the_concatenation(head_of, fields):
    head = head_of("mlp")
    torch.testing.assert_close(head(fields), outputs(head, mlp(head.tower, fields)))


def test_deepfm_equals_first_order_plus_all_pairs_plus_mlp(head_of, fields):
    head = head_of("deepfm")
    names = head.vectors.names
    vectors = [fields[name] @ head.vectors[name].weight.T for name in names]
    pairs = sum(vectors[i] * vectors[j] for i in range(len(names)) for j in range(i))
    first = together(fields, names) @ concatenated(head.first_order.blocks).T + head.first_order.bias
    shared = torch.cat([mlp(head.tower, fields), first, pairs], 1)
    torch.testing.assert_close(head(fields), outputs(head, shared), rtol=1e-4, atol=1e-4)


def test_a_new_deepfm_adds_its_parts_as_published(tiny_spec, with_model, fields):
    spec = with_model(head="deepfm")
    head = HEADS["deepfm"](field_sizes(spec, width=32), ("label",), spec.model).eval()
    for block in head.first_order.blocks.values():
        torch.nn.init.normal_(block.weight)
    vectors = torch.stack([fields[name] @ head.vectors[name].weight.T for name in head.vectors.names])
    pairwise = ((vectors.sum(0) ** 2 - (vectors**2).sum(0)) / 2).sum(1)
    last = head.outputs["label:label"]
    deep = head.tower(fields) @ last.weight[0, :8] + last.bias
    torch.testing.assert_close(head(fields)[:, 0], deep + head.first_order(fields)[:, 0] + pairwise)


def test_dcn_v2_equals_cross_layers_and_an_mlp_over_one_concatenation(head_of, fields):
    fields["numbers"] = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    head = head_of("dcn_v2", {"numbers": 5})
    names = head.mlp.entry.blocks.names
    kept = {name: fields[name] for name in fields if name.startswith(("id:", "text_id", "cat:", "numbers"))}
    assert set(head.factors.names) == {
        f"{kind}:{feature}" for kind in ("met", "extent") for feature in ("bills", "visits")
    }
    kept |= {name: fields[name] * head.factors[name].weight.item() for name in head.factors.names}
    assert set(names) == set(fields) == {*head.vectors.names, *kept}
    vectors = {name: fields[name] @ head.vectors[name].weight.T for name in head.vectors.names} | kept
    first = together(vectors, names)
    x = first
    for layer in head.cross_layers:
        widen = [layer.widen[name] for name in names]
        v, u = concatenated(layer.narrow), torch.cat([part.weight for part in widen])
        x = first * (x @ v.T @ u.T + torch.cat([part.bias for part in widen])) + x
    crossed = [head.crossed[label_key(label)] for label in LABELS]
    logits = torch.cat([x @ concatenated(part.blocks).T + part.bias for part in crossed], 1)
    torch.testing.assert_close(head(fields), outputs(head, mlp(head.mlp, vectors)) + logits, rtol=1e-4, atol=1e-3)


def test_an_absent_number_is_not_a_mean_number(tiny_spec):
    maps = FieldLinear({"num:price": 2}, 3)
    columns = ColumnFields(dataclasses.replace(tiny_spec, cat_columns=()))
    no_ids = torch.zeros(2, 2, dtype=torch.long)
    mean, absent = maps(columns(no_ids, torch.tensor([[0.0], [float("nan")]])))
    assert not torch.allclose(mean, absent)


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2"])
def test_an_id_never_seen_in_training_scores_as_an_absent_one(head, tiny_split, with_model):
    model = new_model(with_model(head=head), tiny_split().deep, seed=1)
    user, item, cat, num = inputs()
    with torch.inference_mode():
        assert torch.equal(
            model.click_logit(user, item, cat, num), model.click_logit(user, item, torch.zeros_like(cat), num)
        )


def test_names_that_are_no_module_names_are_accepted(tiny_spec):
    spec = dataclasses.replace(tiny_spec, features=("items", "type"), cat_columns=("a.b", "a%2Eb", "keys"))
    for name in ("mlp", "deepfm", "dcn_v2"):
        head = HEADS[name](field_sizes(spec, width=32), ("label", "x.y"), spec.model)
        entry = head.mlp.entry if name == "dcn_v2" else head.tower.entry
        assert len(entry.blocks) == 1 + 2 + 2 + 2 + 3 + 2 + 2 + 3 + 1


def test_gradients_of_hashed_embeddings_hold_only_the_rows_looked_up(tiny_model):
    user, item, cat, num = inputs()
    tiny_model.click_logit(user, item, cat, num).sum().backward()
    gradient = tiny_model.columns.tables["id:user"].weight.grad
    assert gradient.is_sparse
    assert set(gradient.coalesce().indices()[0].tolist()) <= set(cat[:, 0].tolist())


def test_extra_labels_do_not_touch_the_click_s_own_weights(fill, tiny_split, tiny_spec):
    model = fill(new_model(tiny_spec.grown(extra_labels=["paid"]), tiny_split().deep, seed=1))
    assert set(model.head.outputs) == {"label:label", "label:paid"}
    assert set(model.log_variances) == {"label:label", "label:paid"}
    assert not new_model(tiny_spec, tiny_split().deep, seed=1).log_variances


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2"])
def test_weights_kept_between_batches_give_the_same_bits(
    head, fill, with_model, tiny_split, tiny_rows, embeddings, batch_of
):
    spec = with_model(head=head)
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    batch = batch_of(tiny_rows, embeddings, spec)
    with torch.inference_mode():
        expected = model(batch)
        with weights_kept():
            assert torch.equal(model(batch), expected)
            assert torch.equal(model(batch), expected)
        for parameter in model.head.parameters():
            parameter.mul_(2)
        assert not torch.allclose(model(batch), expected)  # nothing is kept behind


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2"])
def test_the_click_alone_is_the_first_of_all_labels(
    head, fill, with_model, tiny_split, tiny_rows, embeddings, batch_of
):
    spec = with_model(head=head).grown(extra_labels=["paid"], outcome_thresholds=(2.0,))
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    batch = batch_of(tiny_rows, embeddings, spec)
    user = model.user_embedding(batch.users)[batch.user_of]
    item = model.item_embedding(batch.items)[batch.item_of]
    logits = model(batch)
    assert logits.shape == (len(tiny_rows), 3)
    torch.testing.assert_close(model.click_logit(user, item, batch.cat, batch.num), logits[:, 0])


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2"])
def test_text_features_stacked_give_what_one_map_each_gives(
    head, fill, with_model, tiny_split, tiny_rows, embeddings, batch_of
):
    spec = with_model(head=head)
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    batch = batch_of(tiny_rows, embeddings, spec)
    with torch.inference_mode():
        expected = model(batch)[:, 0]
        user = model.user_embedding(batch.users)[batch.user_of]
        item = model.item_embedding(batch.items)[batch.item_of]
        torch.testing.assert_close(model.click_logit(user, item, batch.cat, batch.num), expected)
