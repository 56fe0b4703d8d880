"""Pairs that there is no model to score with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bahe_tasks.config import Config, RegistryConfig
from bahe_tasks.stages.score_pairs import NothingToScoreWithError, score_file
from bahe_tasks.stores.model_registry import connect


def test_without_a_champion_the_lineages_that_have_one_are_named(tmp_path):
    config = Config(home=tmp_path, registry=RegistryConfig(model_name="of_today"))
    (tmp_path / "pairs.csv").write_text("user_id,item_id\nu,i\n")

    def refused() -> str:
        with pytest.raises(NothingToScoreWithError) as error:
            score_file(tmp_path / "pairs.csv", tmp_path / "out.csv", config)
        return str(error.value)

    alone = "registered model of_today has no champion; run a day first: `bahe run-day DAY`"
    assert refused() == alone
    for name, alias in (("before", "champion"), ("of_old", "champion"), ("never_passed", "challenger")):
        client = connect(replace(config, registry=RegistryConfig(model_name=name))).client
        client.create_registered_model(name)
        client.create_model_version(name, source=str(tmp_path))
        client.set_registered_model_alias(name, alias, "1")
    assert refused() == f"{alone}, or set registry.model_name to one that has: before, of_old"
