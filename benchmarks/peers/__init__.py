"""Public click models and plain baselines that BAHE is compared with, all run by one progressive protocol."""
