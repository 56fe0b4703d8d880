import pyarrow as pa
import pytest

from bahe_tasks.schemas import TABLES
from bahe_tasks.stores.arrow_types import UnknownTypeError, arrow_schema, arrow_type


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_column_of_every_table_has_an_arrow_type(name):
    assert arrow_schema(name).names == TABLES[name].column_names


def test_times_are_utc_microseconds():
    assert arrow_type("timestamp") == pa.timestamp("us", "UTC")


def test_maps_and_arrays_nest():
    assert arrow_type("map<string,array<timestamp>>") == pa.map_(pa.string(), pa.list_(pa.timestamp("us", "UTC")))


@pytest.mark.parametrize("kind", ["decimal(10,2)", "map<string>", "array<string", ""])
def test_an_unknown_type_is_an_error(kind):
    with pytest.raises(UnknownTypeError, match="arrow_types"):
        arrow_type(kind)
