"""A tiny checkpoint and a log of a few days that the tests of the studies share. Everything is seeded."""

import argparse
from datetime import date
from pathlib import Path

import pytest

from bahe_tasks.config import Config, EncoderConfig, ModelConfig, TrainingConfig
from benchmarks.kit.study_log import StudyLog, add_log_arguments, read_study_log
from benchmarks.model_matrix import save_checkpoint

FIRST = date(2024, 1, 1)


@pytest.fixture(scope="session")
def study() -> StudyLog:
    """Four days of four users."""
    parser = argparse.ArgumentParser()
    add_log_arguments(parser, days=4, users=4, max_behaviors=3)
    return read_study_log(parser.parse_args([]))


@pytest.fixture(scope="session")
def tiny_config(study, tmp_path_factory) -> Config:
    """A random BERT of three layers, cut at one; no dropout in the head."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint("bert", study.log.texts, folder)
    return Config(
        home=Path(),
        encoder=EncoderConfig(checkpoint=str(folder), num_shallow_layers=1, device="cpu"),
        model=ModelConfig(hidden_widths=(8,), hash_buckets=64, cat_width=4, dropout=0.0),
        training=TrainingConfig(num_threads=1, deep_learning_rate=1e-3),
    )
