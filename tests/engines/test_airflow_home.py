"""The embedded Airflow's settings, environment, port and lock."""

from __future__ import annotations

import configparser
import os
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from urllib.parse import urlparse

import pytest

from bahe_tasks.config import AirflowConfig, Config
from bahe_tasks.engines.airflow_home import AirflowInUseError, airflow_environment, free_port, locked, write_settings


@pytest.fixture
def config(tmp_path):
    return Config(home=tmp_path / "home")


def settings_of(config, *, port=8080, schedules=True):
    parser = configparser.RawConfigParser()
    parser.read(write_settings(config, port=port, schedules=schedules))
    return parser


def test_every_address_is_on_the_loopback_interface_with_one_port(config):
    settings = settings_of(config, port=18181)
    assert settings["api"]["host"] == "127.0.0.1"
    assert settings["api"]["port"] == "18181"
    for address in (settings["api"]["base_url"], settings["core"]["execution_api_server_url"]):
        assert (urlparse(address).hostname, urlparse(address).port) == ("127.0.0.1", 18181)


def test_nothing_is_read_or_written_outside_the_home_folder_but_the_dags(config):
    settings = settings_of(config)
    home = str(config.home)
    assert home in settings["database"]["sql_alchemy_conn"]
    assert settings["logging"]["base_log_folder"].startswith(home)
    assert settings["core"]["plugins_folder"].startswith(home)
    assert os.listdir(settings["core"]["dags_folder"]).count("bahe_daily_update.py") == 1


def test_four_local_workers_and_no_examples(config):
    core = settings_of(config)["core"]
    assert (core["executor"], core["parallelism"], core["load_examples"]) == ("LocalExecutor", "4", "False")


def test_secrets_stay_the_same_and_are_the_owners_alone(config):
    first, second = settings_of(config), settings_of(config, port=9999)
    for section, key in (("core", "fernet_key"), ("api", "secret_key"), ("api_auth", "jwt_secret")):
        assert len(first[section][key]) >= 44
        assert first[section][key] == second[section][key]
    assert stat.S_IMODE((config.home / "airflow" / "airflow.cfg").stat().st_mode) == 0o600


def test_two_homes_have_different_secrets(config, tmp_path):
    other = settings_of(Config(home=tmp_path / "other"))
    assert settings_of(config)["api_auth"]["jwt_secret"] != other["api_auth"]["jwt_secret"]


def test_a_percent_sign_in_the_home_folder_is_kept(tmp_path):
    config = Config(home=tmp_path / "100%s")
    parser = configparser.ConfigParser()  # interpolates, as Airflow does
    parser.read(write_settings(config, port=8080, schedules=True))
    assert parser["logging"]["base_log_folder"] == f"{tmp_path}/100%s/airflow/logs"


def test_runs_start_by_themselves_only_once_schedule_start_is_set_and_not_in_a_backfill(config):
    assert settings_of(config)["scheduler"]["use_job_schedule"] == "False"
    scheduled = replace(config, airflow=AirflowConfig(schedule_start="2026-01-01"))
    assert settings_of(scheduled)["scheduler"]["use_job_schedule"] == "True"
    assert settings_of(scheduled, schedules=False)["scheduler"]["use_job_schedule"] == "False"


def test_settings_of_another_airflow_are_kept_out_of_the_environment(config):
    given = {"AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "AIRFLOW_HOME": "/elsewhere", "PATH": "/bin", "LANG": "C"}
    environment = airflow_environment(config, given)
    assert "AIRFLOW__CORE__EXECUTOR" not in environment
    assert environment["AIRFLOW_HOME"] == str(config.home / "airflow")
    assert environment["LANG"] == "C"


def test_tasks_find_home_and_landing_and_send_nothing_home(config):
    environment = airflow_environment(config, {})
    assert environment["BAHE_HOME"] == str(config.home)
    assert environment["BAHE_LANDING"] == str(config.landing_dir)
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["GX_ANALYTICS_ENABLED"] == "False"


def test_what_talks_to_the_loopback_interface_asks_no_proxy(config):
    environment = airflow_environment(config, {"HTTP_PROXY": "http://proxy.example:3128", "NO_PROXY": "example.org"})
    assert environment["NO_PROXY"].split(",") == ["example.org", "127.0.0.1", "localhost"]


def test_a_port_in_use_is_replaced_by_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = free_port(port)
    assert found != port
    assert free_port(port) == port


def test_the_lock_refuses_a_second_program_and_ends_with_the_last_holder(config):
    with locked(config) as lock:
        holder = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
        with pytest.raises(AirflowInUseError, match="bahe ui"), locked(config):
            pass
    with pytest.raises(AirflowInUseError), locked(config):
        pass  # the child still has it
    threading.Timer(0.5, holder.communicate, [b"\n"]).start()
    with locked(config):
        pass  # who is ending is waited for
