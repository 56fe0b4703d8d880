import json

import yaml
from typer.testing import CliRunner

from bahe_tasks.cli import app
from bahe_tasks.config import SECTIONS


def test_config_show_prints_every_setting_in_force(tmp_path):
    (tmp_path / "bahe.yaml").write_text("model: {head: din}\ntraining: {label_weights: {paid: 0.5}}\n")
    printed = CliRunner().invoke(app, ["config", "show", "--home", str(tmp_path)])
    assert printed.exit_code == 0
    assert "head: din  # default: dcn_v2" in printed.stdout
    assert yaml.safe_load(printed.stdout)["training"]["label_weights"] == {"paid": 0.5}
    document = json.loads(CliRunner().invoke(app, ["config", "show", "--json", "--home", str(tmp_path)]).stdout)
    assert list(document["settings"]) == list(SECTIONS)
    assert document["settings"]["model"]["head"] == "din"
    assert document["settings"]["model"]["hidden_widths"] == [128, 64]


def test_init_names_the_landing_folder_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("BAHE_LANDING", str(tmp_path / "landed"))
    told = CliRunner().invoke(app, ["init", str(tmp_path / "home"), "--json"])
    assert json.loads(told.stdout)["landing"] == str(tmp_path / "landed")
