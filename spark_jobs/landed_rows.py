"""Landed rows of files that are alike, and how a field of the landing contract is read out of them.

A row of json lines has a map of its fields, since each line may name others. Rows of csv and parquet files have the
columns of their file, which are read one by one and, in parquet, by their type: ten million maps are most of a day.

Unusual: `raw`, the row as it landed, is an expression, to be computed of few rows.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs import parse_fields as parse
from spark_jobs.canonical_text import canonical_text, is_plain, odd_text, plain_text


@dataclass(frozen=True)
class MapFields:
    """Fields in one map<string,string> a row; null where the row could not be read. Null and empty mean absent."""

    fields: Column

    def text(self, name: str) -> Column:
        """Return one field as text, null where it is absent."""
        return F.nullif(F.try_element_at(self.fields, F.lit(name)), F.lit(""))

    def instant(self, name: str) -> Column:
        """Return one field as a timestamp, null where it is absent or cannot be read."""
        return parse.instant(self.text(name))

    def number(self, name: str) -> Column:
        """Return one field as a finite double, null where it is absent or cannot be read."""
        return parse.number(self.text(name))

    def texts(self, prefix: str) -> Column:
        """Return the fields present that are named `prefix`NAME as a map from NAME to text."""
        return parse.with_prefix(parse.present(self.fields), prefix)

    def numbers(self, prefix: str) -> Column:
        """Return the fields present that are named `prefix`NAME as a map from NAME to a double, null if unreadable."""
        return F.transform_values(self.texts(prefix), lambda _, text: parse.number(text))

    def unknown(self, *, known: tuple[str, ...], prefixes: tuple[str, ...]) -> Column:
        """Return the sorted names of fields that the landing contract does not know."""
        pattern = _pattern(known, prefixes)
        return F.array_sort(F.filter(F.map_keys(self.fields), lambda name: ~name.rlike(pattern)))


@dataclass(frozen=True)
class FileColumn:
    """One column of a file: its text (null where absent) and, where its type has them, its instant and its number."""

    text: Column
    instant: Column | None = None
    number: Column | None = None


@dataclass(frozen=True)
class ColumnFields:
    """Fields in the columns of a file, by their names there; all are absent in a row that could not be read."""

    columns: dict[str, FileColumn]
    is_read: Column
    """Whether the row could be read."""

    def landed_text(self, name: str) -> Column:
        """Return one field as text whether the row could be read or not."""
        return self.columns[name].text if name in self.columns else F.lit(None).cast("string")

    def text(self, name: str) -> Column:
        """Return one field as text, null where it is absent."""
        return self._of(name, "string", lambda column: F.nullif(column.text, F.lit("")))

    def instant(self, name: str) -> Column:
        """Return one field as a timestamp, null where it is absent or cannot be read."""
        return self._of(name, "timestamp", _instant)

    def number(self, name: str) -> Column:
        """Return one field as a finite double, null where it is absent or cannot be read."""
        return self._of(name, "double", _number)

    def texts(self, prefix: str) -> Column:
        """Return the fields present that are named `prefix`NAME as a map from NAME to text."""
        return self._map(prefix, "string", self.text)

    def numbers(self, prefix: str) -> Column:
        """Return the fields present that are named `prefix`NAME as a map from NAME to a double, null if unreadable."""
        return self._map(prefix, "double", self.number)

    def unknown(self, *, known: tuple[str, ...], prefixes: tuple[str, ...]) -> Column:
        """Return the sorted names of columns that the landing contract does not know."""
        pattern = re.compile(_pattern(known, prefixes))
        names = sorted(name for name in self.columns if not pattern.search(name))
        return F.when(self.is_read, F.array(*[F.lit(name) for name in names]).cast("array<string>"))

    def _of(self, name: str, kind: str, value: Callable[[FileColumn], Column]) -> Column:
        if name not in self.columns:
            return F.lit(None).cast(kind)
        return F.when(self.is_read, value(self.columns[name]))

    def _map(self, prefix: str, kind: str, value: Callable[[str], Column]) -> Column:
        """One small map a column, put together: unlike a filter over one map, this is compiled."""
        none = F.create_map().cast(f"map<string,{kind}>")
        names = [name for name in self.columns if name.startswith(prefix) and len(name) > len(prefix)]
        entries = [
            F.when(self.text(name).isNotNull(), F.create_map(F.lit(name[len(prefix) :]), value(name))).otherwise(none)
            for name in names
        ]
        return F.when(self.is_read, F.map_concat(*entries) if entries else none)


@dataclass(frozen=True)
class LandedRows:
    """`rows` has dt, source_file, problem (why a row could not be read, else null) and what `fields` and `raw` read."""

    rows: DataFrame
    fields: MapFields | ColumnFields
    raw: Column
    may_be_read_twice: bool = False
    """Reading some of its rows costs little beside judging them."""

    def judged(self, typed: dict[str, Column], *, reason: Column, unknown: Column, keep_raw: bool = False) -> DataFrame:
        """Return dt, the typed columns, `reason` (over them and problem), source_file, raw of refused rows, unknown.

        `keep_raw`: raw of every row.
        """
        with_reason = self.rows.withColumns(typed).withColumns(
            {"reason": F.coalesce("problem", reason), "unknown": unknown}
        )
        raw = self.raw if keep_raw else F.when(F.col("reason").isNotNull(), self.raw)
        return with_reason.select("dt", *typed, "reason", "source_file", raw.alias("raw"), "unknown")


Canonical = Callable[[Column], Column]


def judge_each(
    landed: Sequence[LandedRows], judge: Callable[[LandedRows, Canonical], DataFrame], *, text: str
) -> DataFrame:
    """Return the judged rows of all files. `judge` is given rows and how the field `text` of them gets canonical.

    Where rows may be read twice, only those with an odd text pass through Python.
    """
    judged = []
    for rows in landed:
        if rows.may_be_read_twice and isinstance(rows.fields, ColumnFields):
            # Of the column alone: what cannot be read has no text to fold, in whichever branch it is.
            plain = is_plain(rows.fields.landed_text(text))
            judged += [
                judge(replace(rows, rows=rows.rows.where(plain)), plain_text),
                judge(replace(rows, rows=rows.rows.where(~plain)), odd_text),
            ]
        else:
            judged.append(judge(rows, canonical_text))
    return functools.reduce(DataFrame.union, judged)


def _instant(column: FileColumn) -> Column:
    return parse.instant(column.text) if column.instant is None else column.instant


def _number(column: FileColumn) -> Column:
    return parse.number(column.text) if column.number is None else parse.finite(column.number)


def _pattern(known: tuple[str, ...], prefixes: tuple[str, ...]) -> str:
    pattern = "|".join(["|".join(known), *[f"{prefix}.+" for prefix in prefixes]])
    return f"^({pattern})$"
