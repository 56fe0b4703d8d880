"""Put on PYTHONPATH, replaces the stages by stubs, so that the real scheduler runs the real DAG in seconds.

What a day comes to is told by its day of the month: 1 passes, 2 is refused at the inputs, 3 has no impressions,
4 has nothing landed, 5 is refused at the challenger. Python imports a module of this name at start-up.
"""

import importlib.abc
import importlib.machinery
import sys


def dedup_behaviors(day, config, *, force=False):
    from bahe_tasks.stages.errors import NothingLandedError

    if day.day == 4:
        raise NothingLandedError(f"{day} has no files")
    return {"day": str(day), "force": force, "landing": str(config.landing_dir)}


def validate_inputs(day, config, *, force=False, accept_reason=None):
    from bahe_tasks.stages.errors import GateRefused

    if day.day == 2 and not accept_reason:
        raise GateRefused(f"inputs of {day} refused")
    return {"gate": "passed"}


def encode_behaviors(day, config, *, force=False):
    return {"new_behaviors": 3}


def fine_tune(day, config, *, force=False):
    return {"state": "no_impressions"} if day.day == 3 else {"state": "trained", "run_id": f"run-{day}"}


def register_challenger(day, config, *, run_id):
    return {"version": day.day, "of": run_id}


def validate_challenger(day, config, *, version, force=False):
    from bahe_tasks.stages.errors import GateRefused

    if day.day == 5:
        raise GateRefused(f"version {version} refused")
    return {"gate": "passed", "version": version}


def promote_champion(day, config, *, version):
    return {"promoted": True, "version": version}


def publish_embeddings(day, config, *, version):
    return {"published": version}


def stop_spark_session():
    """Spark never started."""


_STAGES = (
    dedup_behaviors,
    validate_inputs,
    encode_behaviors,
    fine_tune,
    register_challenger,
    validate_challenger,
    promote_champion,
    publish_embeddings,
)
_STUBS = {f"bahe_tasks.stages.{stage.__name__}": stage for stage in _STAGES} | {
    "spark_jobs.session": stop_spark_session
}


class _StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name in _STUBS else None

    def exec_module(self, module):
        stub = _STUBS[module.__name__]
        setattr(module, stub.__name__, stub)


sys.meta_path.insert(0, _StubFinder())
