import json
import math

import pytest

from benchmarks.kit.document import Document


@pytest.mark.parametrize("as_json", [True, False])
def test_figures_without_a_number_are_named(capsys, as_json):
    document = Document("x", {"auc": 0.5, "low": math.nan}, [{"model": "a", "auc": math.nan}])
    document.show(as_json=as_json)
    printed = capsys.readouterr()
    assert printed.err == "no number on these rows: low\n"
    if as_json:
        found = json.loads(printed.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert found["figures"] == {"auc": 0.5, "low": None}
        assert found["rows"] == [{"model": "a", "auc": None}]
