import dataclasses

import numpy as np
import torch

from bahe_tasks.core.heads import MlpHead


def inputs(num_rows=6):
    generator = torch.Generator().manual_seed(4)
    user, item = (torch.randn(num_rows, width, generator=generator) for width in (64, 32))
    cat = torch.randint(0, 513, (num_rows, 3), generator=generator)
    num = torch.tensor([[0.5], [float("nan")], [-1.0], [0.0], [2.0], [float("nan")]])
    return user, item, cat, num


def test_the_first_layer_equals_one_linear_map_over_the_concatenation(tiny_model):
    head = tiny_model.head
    user, item, cat, num = inputs()
    looked_up = [table.weight[cat[:, c]] for c, table in enumerate(head.tables.values())]
    presence = torch.stack([num.nan_to_num(0.0)[:, 0], (~num.isnan())[:, 0].float()], 1)
    columns = {
        "item": item,
        "user:bills": user[:, :32],
        "user:visits": user[:, 32:],
        "product:bills": user[:, :32] * item,
        "product:visits": user[:, 32:] * item,
        **dict(zip(("id:user", "id:item", "cat:genre"), looked_up, strict=True)),
        "num:price": presence,
    }
    weight = torch.cat([head.blocks[name].weight for name in columns], 1)
    first = torch.cat(list(columns.values()), 1) @ weight.T + head.bias
    torch.testing.assert_close(head(user, item, cat, num), head.layers(first).squeeze(1))
    assert set(head.blocks) == set(columns)


def test_an_absent_number_is_not_a_mean_number(tiny_model):
    user, item, cat, _ = inputs(2)
    logits = tiny_model.head(
        user[:1].expand(2, -1), item[:1].expand(2, -1), cat[:1].expand(2, -1), torch.tensor([[0.0], [float("nan")]])
    )
    assert logits[0] != logits[1]


def test_an_id_never_seen_in_training_scores_as_an_absent_one(tiny_spec):
    head = MlpHead(tiny_spec, width=32).eval()
    user, item, cat, num = inputs()
    assert torch.equal(head(user, item, cat, num), head(user, item, torch.zeros_like(cat), num))


def test_names_that_are_no_module_names_are_accepted(tiny_spec):
    spec = dataclasses.replace(tiny_spec, features=("items", "type"), cat_columns=("a.b", "a%2Eb", "keys"))
    head = MlpHead(spec, width=32)
    assert len(head.blocks) == 1 + 2 + 2 + 2 + 3 + 1


def test_a_head_without_hidden_layers_is_a_linear_model(tiny_spec):
    spec = dataclasses.replace(tiny_spec, model=dataclasses.replace(tiny_spec.model, hidden_widths=()))
    head = MlpHead(spec, width=32)
    user, item, cat, num = inputs()
    assert head(user, item, cat, num).shape == (6,)
    assert head.output_bias is head.bias


def test_gradients_of_hashed_embeddings_hold_only_the_rows_looked_up(tiny_model):
    user, item, cat, num = inputs()
    tiny_model.head(user, item, cat, num).sum().backward()
    gradient = tiny_model.head.tables["id:user"].weight.grad
    assert gradient.is_sparse
    assert set(gradient.coalesce().indices()[0].tolist()) <= set(np.unique(cat[:, 0]).tolist())
