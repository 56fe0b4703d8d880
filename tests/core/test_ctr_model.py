import dataclasses

import pytest
import torch

from bahe_tasks.core.batches import ItemBatch
from bahe_tasks.core.ctr_model import ItemDependentUserError, new_model
from bahe_tasks.core.model_files import load_model, save_model
from bahe_tasks.core.sequence_inputs import age_buckets

WIDTH = 32 + 4 + 3  # of the tiny LLM, topics, ids of texts
HISTORY = WIDTH + 1  # and how long it is
EQUAL_SHARES = torch.full((4,), 0.25)
UNREAD = torch.cat([EQUAL_SHARES, torch.zeros(3)])
NO_LENGTH = torch.tensor([-1.0])


def plain_user_embedding(model, rows, embeddings, r, pooling="mean"):
    """One impression, one text feature at a time, no padding."""
    parts = []
    for feature in ("bills", "visits"):
        history = rows.histories[feature]
        positions = range(history.starts[r], history.ends[r])
        if len(positions) == 0:
            parts += [model.empty_history[f"user:{feature}"], UNREAD, NO_LENGTH]
            continue
        length = (torch.log(torch.tensor([1.0 + len(positions)])) - 2) / 2
        behaviors = torch.stack([torch.tensor(embeddings[history.behavior_rows[p]]).float() for p in positions])
        ages_s = torch.tensor([(int(rows.shown_at[r]) - int(history.occurred_at[p])) / 1e6 for p in positions])
        shares = (model.topics(behaviors).sum(0) + 0.5 * EQUAL_SHARES) / (len(behaviors) + 0.5)
        ids = model.text_ids(behaviors).sum(0) / (len(behaviors) + 1)
        behaviors = behaviors + model.age_and_position.recency.weight[age_buckets(ages_s, num_buckets=8)]
        if pooling == "summary":
            behaviors = torch.cat([behaviors, behaviors.mean(0, keepdim=True)])
        outputs = model.deep(behaviors[None], torch.ones(1, len(behaviors), dtype=torch.long))[0]
        parts += [outputs.mean(0) if pooling == "mean" else outputs[-1], shares, ids, length]
    return torch.cat(parts)


def test_feature_parallel_equals_one_feature_of_one_impression_at_a_time(
    fill, tiny_split, with_model, tiny_rows, embeddings, batch_of
):
    for pooling in ("mean", "last", "summary"):
        spec = with_model(behavior_pooling=pooling)
        model = fill(new_model(spec, tiny_split().deep, seed=3))
        with torch.inference_mode():
            batch = batch_of(tiny_rows, embeddings, spec)
            together = model.user_embedding(batch.users)[batch.user_of]
            for r in range(len(tiny_rows)):
                expected = plain_user_embedding(model, tiny_rows, embeddings, r, pooling)
                torch.testing.assert_close(together[r], expected)


@pytest.mark.parametrize("pooling", ["mean", "summary"])
def test_gradients_of_feature_parallel_equal_one_at_a_time(
    fill, pooling, tiny_split, with_model, tiny_rows, embeddings, batch_of
):
    spec = with_model(behavior_pooling=pooling)
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    target = torch.randn(len(tiny_rows), 2 * HISTORY, generator=torch.Generator().manual_seed(0))
    batch = batch_of(tiny_rows, embeddings, spec)
    loss = (model.user_embedding(batch.users)[batch.user_of] * target).sum()
    shared = (*model.topics.parameters(), *model.text_ids.parameters(), *model.deep.parameters())
    weights = [model.age_and_position.recency.weight, *shared]
    together = torch.autograd.grad(loss, weights)
    plain = torch.stack([plain_user_embedding(model, tiny_rows, embeddings, r, pooling) for r in range(len(tiny_rows))])
    for got, expected in zip(together, torch.autograd.grad((plain * target).sum(), weights), strict=True):
        torch.testing.assert_close(got.to_dense(), expected.to_dense(), rtol=1e-4, atol=1e-4)


def test_the_user_embedding_does_not_depend_on_the_candidate_item(
    tiny_model, tiny_rows, tiny_spec, embeddings, batch_of
):
    other = dataclasses.replace(
        tiny_rows, title_rows=tiny_rows.title_rows[::-1].copy(), item_ids=tiny_rows.item_ids[::-1]
    )
    with torch.inference_mode():
        here, there = (tiny_model.user_embedding(batch_of(r, embeddings, tiny_spec).users) for r in (tiny_rows, other))
        logits = [tiny_model(batch_of(r, embeddings, tiny_spec)) for r in (tiny_rows, other)]
    assert torch.equal(here, there)
    assert not torch.allclose(*logits)


def test_an_empty_history_and_an_unknown_item_are_learned_vectors(
    tiny_model, tiny_rows, tiny_spec, embeddings, batch_of
):
    batch = batch_of(tiny_rows, embeddings, tiny_spec)
    user = tiny_model.user_embedding(batch.users)[batch.user_of]
    item = tiny_model.item_embedding(batch.items)[batch.item_of]
    bills, visits = (tiny_model.empty_history[f"user:{feature}"] for feature in ("bills", "visits"))
    assert torch.equal(user[3], torch.cat([bills, UNREAD, NO_LENGTH, visits, UNREAD, NO_LENGTH]))
    assert torch.equal(item[4], torch.cat([tiny_model.unknown_item, UNREAD]))
    (user[3].sum() + item[4].sum()).backward()
    assert tiny_model.empty_history["user:bills"].grad.eq(1).all()
    assert tiny_model.unknown_item.grad.eq(1).all()


def test_item_embedding_is_the_title_alone_through_the_deep_layers(
    tiny_model, tiny_rows, tiny_spec, embeddings, batch_of
):
    with torch.inference_mode():
        batch = batch_of(tiny_rows, embeddings, tiny_spec)
        items = tiny_model.item_embedding(batch.items)[batch.item_of]
        title = torch.tensor(embeddings[tiny_rows.title_rows[0]]).float()[None, None]
        outputs = tiny_model.deep(title, torch.ones(1, 1, dtype=torch.long))
        beside = [part(title)[0, 0] for part in (tiny_model.topics, tiny_model.text_ids)]
        torch.testing.assert_close(items[0], torch.cat([outputs[0, 0], *beside]))


def test_the_age_of_a_behavior_matters(tiny_model, tiny_rows, tiny_spec, embeddings, batch_of):
    later = dataclasses.replace(tiny_rows, as_of=tiny_rows.shown_at + 30 * 86400 * 1_000_000)
    with torch.inference_mode():
        batches = [batch_of(r, embeddings, tiny_spec) for r in (tiny_rows, later)]
        now, then = (tiny_model.user_embedding(batch.users)[batch.user_of] for batch in batches)
    assert not torch.allclose(now[2], then[2])
    assert torch.equal(now[3], then[3])  # both histories empty


def test_a_text_feature_the_log_no_longer_has_is_empty(tiny_model, tiny_rows, tiny_spec, embeddings, batch_of):
    without = dataclasses.replace(tiny_rows, histories={"bills": tiny_rows.histories["bills"]})
    batch = batch_of(without, embeddings, tiny_spec)
    user = tiny_model.user_embedding(batch.users)[batch.user_of]
    empty = torch.cat([tiny_model.empty_history["user:visits"], UNREAD, NO_LENGTH])
    assert torch.equal(user[:, HISTORY:], empty.expand(9, HISTORY))


def test_a_model_without_text_features_still_scores(tiny_split, tiny_spec, tiny_rows, embeddings, batch_of):
    spec = dataclasses.replace(tiny_spec, features=())
    model = new_model(spec, tiny_split().deep, seed=1)
    assert model(batch_of(tiny_rows, embeddings, spec)).shape == (9, 1)


def test_a_new_model_starts_near_the_base_rate(tiny_split, tiny_spec, tiny_rows, embeddings, batch_of):
    model = new_model(tiny_spec, tiny_split().deep, seed=1, base_rates={"label": 0.02})
    with torch.inference_mode():
        probability = model(batch_of(tiny_rows, embeddings, tiny_spec)).sigmoid().mean().item()
    assert 0.01 < probability < 0.04


def test_a_new_model_is_a_function_of_its_seed(tiny_split, tiny_spec):
    one, same, other = (new_model(tiny_spec, tiny_split().deep, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["unknown_item"], other["unknown_item"])


@pytest.mark.parametrize("settings", [{"head": "din"}, {"item_reading": "beside"}], ids=["din", "beside"])
def test_where_the_user_side_depends_on_the_item_there_is_no_user_embedding(
    fill, settings, tiny_split, with_model, tiny_rows, embeddings, batch_of
):
    spec = with_model(**settings)
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    batch = batch_of(tiny_rows, embeddings, spec)
    assert not spec.model.user_is_cacheable
    with pytest.raises(ItemDependentUserError, match="depends on the candidate item"):
        model.user_embedding(batch.users)
    with pytest.raises(ItemDependentUserError):
        model.click_logit(torch.zeros(9, 2 * HISTORY), torch.zeros(9, WIDTH), batch.cat, batch.num)


def test_beside_the_item_is_the_last_position_of_every_sequence(
    fill, tiny_split, with_model, tiny_rows, embeddings, batch_of
):
    """Against one sequence at a time; row 4 has no known title, so its sequences hold behaviors alone."""
    spec = with_model(item_reading="beside", recency_buckets=0, behavior_pooling="mean")
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    batch = batch_of(tiny_rows, embeddings, spec)
    with torch.inference_mode():
        item_of_user = batch.item_of[batch.user_of.argsort()]
        items = ItemBatch(batch.items.titles[item_of_user], batch.items.known[item_of_user])
        user = model._pooled(9, model._deep_pass(batch.users, items))[batch.user_of]
        for r in range(len(tiny_rows)):
            for n, history in enumerate(tiny_rows.histories.values()):
                behaviors = history.behavior_rows[history.starts[r] : history.ends[r]]
                if not len(behaviors):
                    continue
                title = tiny_rows.title_rows[r]
                read = [*behaviors, title] if title >= 0 else behaviors
                outputs = model.deep(torch.tensor(embeddings[read]).float()[None], torch.ones(1, len(read)).long())
                torch.testing.assert_close(
                    user[r, n * HISTORY : n * HISTORY + 32], outputs[0].mean(0), rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2", "din"])
def test_every_head_reads_user_item_and_columns(fill, head, tiny_split, with_model, tiny_rows, embeddings, batch_of):
    spec = with_model(head=head)
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    changed = {
        "title_rows": tiny_rows.title_rows[::-1].copy(),
        "user_ids": tiny_rows.user_ids[::-1],
        "histories": {**tiny_rows.histories, "bills": tiny_rows.histories["visits"]},
        "cat": {"genre": tiny_rows.cat["genre"][::-1]},
        "num": {"price": tiny_rows.num["price"][::-1]},
    }
    with torch.inference_mode():
        before = model(batch_of(tiny_rows, embeddings, spec))
        assert before.shape == (9, 1)
        for name, value in changed.items():
            after = model(batch_of(dataclasses.replace(tiny_rows, **{name: value}), embeddings, spec))
            assert not torch.allclose(before, after), name


@pytest.mark.parametrize("head", ["mlp", "deepfm", "dcn_v2", "din"])
def test_every_head_starts_near_the_base_rate(head, tiny_split, with_model, tiny_rows, embeddings, batch_of):
    spec = with_model(head=head).grown(extra_labels=["paid"])
    model = new_model(spec, tiny_split().deep, seed=1, base_rates={"label": 0.02, "paid": 0.3})
    with torch.inference_mode():
        logits = model(batch_of(tiny_rows, embeddings, spec))
    at_rates = torch.tensor([0.02, 0.3]).logit()
    assert (logits - at_rates).abs().max() < 1


def test_names_of_the_log_that_torch_keeps_for_itself_are_accepted(
    tmp_path, tiny_split, tiny_spec, tiny_rows, embeddings, batch_of
):
    names = ("items", "type", "training", "keys", "a.b")
    history = tiny_rows.histories["bills"]
    rows = dataclasses.replace(tiny_rows, histories=dict.fromkeys(names, history))
    for head in ("mlp", "deepfm", "dcn_v2", "din"):
        settings = dataclasses.replace(tiny_spec.model, head=head)
        spec = dataclasses.replace(tiny_spec, features=tuple(sorted(names)), extra_labels=names, model=settings)
        model = new_model(spec, tiny_split().deep, seed=1)
        save_model(model, spec, tmp_path / head)
        loaded, _ = load_model(tmp_path / head)
        batch = batch_of(rows, embeddings, spec)
        with torch.inference_mode():
            assert torch.equal(loaded(batch), model(batch))


@pytest.mark.parametrize("pooling", ["mean", "summary"])
def test_din_attends_neither_to_the_item_beside_the_behaviors_nor_to_their_summary(
    pooling, tiny_split, with_model, fill, tiny_rows, embeddings, batch_of
):
    spec = with_model(head="din", item_reading="beside", behavior_pooling=pooling)
    model = fill(new_model(spec, tiny_split().deep, seed=3))
    masks = []
    model.over_behaviors.register_forward_hook(lambda module, inputs, output: masks.append(inputs[2]))
    model(batch_of(tiny_rows, embeddings, spec))
    attended = sum(int(mask.sum()) for mask in masks)
    assert attended == sum(int((h.ends - h.starts).sum()) for h in tiny_rows.histories.values())


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("settings", [{"behavior_pooling": "summary"}, {"behavior_pooling": "last"}, {"behavior_pooling": "summary", "item_reading": "beside"}, {"behavior_pooling": "summary", "deep_tuning": "lora"}], ids=["summary", "last", "beside", "lora"])  # fmt: skip
def test_the_last_layer_at_the_pooled_position_alone_gives_the_same_logits_and_gradients(
    family, settings, fill, tiny_split, with_model, tiny_rows, embeddings, batch_of
):
    spec = with_model(**settings)
    batch = batch_of(tiny_rows, embeddings, spec)
    assert len({group.mask.shape[1] for group in batch.users.groups}) > 1
    found = []
    for whole in (False, True):
        model = fill(new_model(spec, tiny_split(family).deep, seed=3))
        assert model.deep.narrowable
        if whole:
            model.deep._narrowable = ()
        logits = model(batch)
        (logits * torch.arange(1.0, 10.0).unsqueeze(1)).sum().backward()
        found.append({"logits": logits} | {n: p.grad.to_dense() for n, p in model.named_parameters() if p.grad is not None})  # fmt: skip
    assert found[0].keys() == found[1].keys()
    for name, expected in found[1].items():
        torch.testing.assert_close(found[0][name], expected, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
