from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from bahe_tasks.data_interval import InvalidDayError, day_of_run, days_between, end_of, end_us, parse_day, start_of


def test_a_day_is_written_year_month_day():
    assert parse_day("2013-09-24") == date(2013, 9, 24)


@pytest.mark.parametrize("text", ["2013-9-24", "24.09.2013", "2013-09-24T00:00", "2013-02-30", "", "latest"])
def test_anything_else_is_refused_with_the_text_named(text):
    with pytest.raises(InvalidDayError, match="day"):
        parse_day(text)


def test_days_between_includes_both_ends_and_crosses_months():
    assert list(days_between(date(2013, 9, 30), date(2013, 10, 2))) == [
        date(2013, 9, 30),
        date(2013, 10, 1),
        date(2013, 10, 2),
    ]
    assert list(days_between(date(2013, 10, 2), date(2013, 9, 30))) == []


def test_a_day_is_half_open_in_utc():
    assert start_of(date(2013, 9, 24)) == datetime(2013, 9, 24, tzinfo=UTC)
    assert end_of(date(2013, 9, 24)) == datetime(2013, 9, 25, tzinfo=UTC)
    assert end_us(date(1970, 1, 2)) == 2 * 86_400_000_000


def test_the_interval_decides_the_day_in_utc_whatever_its_zone():
    start = datetime(2013, 9, 24, 1, tzinfo=timezone(timedelta(hours=2)))
    assert day_of_run(start, None) == date(2013, 9, 23)


def test_the_day_is_a_plain_date_also_where_the_interval_is_of_another_class():
    class Date(date):
        pass

    class Instant(datetime):
        def astimezone(self, zone):
            return self

        def date(self):
            return Date(self.year, self.month, self.day)

    assert type(day_of_run(Instant(2013, 9, 24, tzinfo=UTC), None)) is date


def test_an_explicit_day_wins_over_the_interval():
    assert day_of_run(datetime(2013, 9, 24, tzinfo=UTC), "2013-09-01") == date(2013, 9, 1)


def test_a_run_with_neither_is_refused_and_says_how_to_trigger_it():
    with pytest.raises(InvalidDayError, match=r'\{"day": "YYYY-MM-DD"\}'):
        day_of_run(None, None)
