"""When schedules are due: parsing, moments, changes of the clocks, and what cron is told."""

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.schedule.when import (
    WEEKDAYS,
    Moment,
    When,
    WhenError,
    cron_fields,
    last_due,
    moments,
    next_due,
    parse,
    poll_fields,
    zone_name,
    zone_of,
)

BERLIN = ZoneInfo("Europe/Berlin")
INTERVALS = [f"{n}m" for n in (1, 2, 5, 10, 15, 20, 30)] + [f"{n}h" for n in (1, 2, 3, 4, 6, 8, 12)]
CLOCKS = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
WHENS = st.one_of(
    st.builds(parse, st.sampled_from(["day", "weekday", "hour", *INTERVALS]), CLOCKS),
    st.builds(parse, st.just("week"), CLOCKS, st.sampled_from(WEEKDAYS)),
)
ZONES = st.sampled_from(
    [
        BERLIN,
        ZoneInfo("America/New_York"),
        ZoneInfo("Australia/Lord_Howe"),
        ZoneInfo("Asia/Kolkata"),
        timezone.utc,
    ]
)
# Two years, with every change of the clocks in them.
TIMES = st.floats(datetime(2026, 1, 1).timestamp(), datetime(2028, 1, 1).timestamp())


def _epoch(year: int, month: int, day: int, hour: int, minute: int = 0, *, hours_east: int) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=timezone(timedelta(hours=hours_east))).timestamp()


@settings(deadline=None, max_examples=60)
@given(WHENS, ZONES, TIMES)
def test_now_lies_between_the_last_and_the_next_moment_and_nothing_lies_between_these(
    when: When, zone: ZoneInfo, now_s: float
) -> None:
    last, coming = last_due(when, now_s, zone), next_due(when, now_s, zone)
    assert last.epoch_s <= now_s < coming.epoch_s
    assert next_due(when, last.epoch_s, zone) == coming
    assert last_due(when, coming.epoch_s, zone).epoch_s == coming.epoch_s
    between = {
        m.epoch_s
        for days in range(-1, when.reach_days + 2)
        for m in moments(when, datetime.fromtimestamp(last.epoch_s, zone).date() + timedelta(days), zone)
        if last.epoch_s < m.epoch_s < coming.epoch_s
    }
    assert between == set()


@settings(deadline=None, max_examples=60)
@given(WHENS, ZONES, TIMES)
def test_a_moment_is_what_a_clock_on_the_wall_shows_unless_it_is_skipped_that_day(
    when: When, zone: ZoneInfo, now_s: float
) -> None:
    last = last_due(when, now_s, zone)
    wall = datetime.fromtimestamp(last.epoch_s, zone)
    meant = datetime.strptime(last.name, "%Y-%m-%dT%H%M")
    skipped = wall.replace(tzinfo=None) != meant
    assert skipped == (
        meant.replace(tzinfo=zone).astimezone(timezone.utc).astimezone(zone).replace(tzinfo=None) != meant
    )
    assert wall.replace(tzinfo=None) - meant in (timedelta(0), timedelta(hours=1), timedelta(minutes=30))


@settings(deadline=None, max_examples=60)
@given(CLOCKS, ZONES, st.integers(0, 700))
def test_a_daily_schedule_has_one_moment_each_day_also_when_the_clocks_change(
    at: str, zone: ZoneInfo, days: int
) -> None:
    found = moments(parse("day", at), date(2026, 1, 1) + timedelta(days), zone)
    assert [m.name[11:] for m in found] == [at.replace(":", "")]


def test_clocks_put_forward_make_a_skipped_moment_come_as_much_later() -> None:
    when = parse("day", "02:30")
    assert moments(when, date(2026, 3, 29), BERLIN) == [
        Moment("2026-03-29T0230", _epoch(2026, 3, 29, 3, 30, hours_east=2))
    ]


def test_clocks_put_back_do_not_make_a_moment_come_twice() -> None:
    when = parse("day", "02:30")
    first, second = _epoch(2026, 10, 25, 2, 30, hours_east=2), _epoch(2026, 10, 25, 2, 30, hours_east=1)
    assert last_due(when, first, BERLIN) == last_due(when, second, BERLIN) == Moment("2026-10-25T0230", first)


def test_two_moments_that_fall_together_when_the_clocks_change_are_one() -> None:
    when = parse("hour", "00:00")
    noon = _epoch(2026, 3, 29, 12, hours_east=2)
    together = _epoch(2026, 3, 29, 3, hours_east=2)
    assert last_due(when, together, BERLIN) == Moment("2026-03-29T0300", together)
    assert len({m.epoch_s for m in moments(when, date(2026, 3, 29), BERLIN) if m.epoch_s < noon}) == 11


@pytest.mark.parametrize(
    ("every", "at", "on", "fields", "words"),
    [
        ("day", "02:00", None, "0 2 * * *", "every day at 02:00"),
        ("day", None, None, "0 2 * * *", "every day at 02:00"),
        ("weekday", "6:05", None, "5 6 * * 1,2,3,4,5", "every weekday at 06:05"),
        ("week", "23:59", "Sat", "59 23 * * 6", "every week on saturday at 23:59"),
        ("week", None, None, "0 2 * * 0", "every week on sunday at 02:00"),
        ("hour", "00:15", None, "15 * * * *", "every hour, at 00:15 and so on"),
        ("1h", None, None, "0 * * * *", "every 1h, at 00:00 and so on"),
        ("6h", "02:10", None, "10 2,8,14,20 * * *", "every 6h, at 02:10 and so on"),
        ("6h", "20:10", None, "10 2,8,14,20 * * *", "every 6h, at 02:10 and so on"),
        ("30m", "00:07", None, "7,37 * * * *", "every 30m, at 00:07 and so on"),
        ("1m", None, None, "* * * * *", "every 1m, at 00:00 and so on"),
    ],
)
def test_cron_is_told_the_same_moments(
    every: str, at: str | None, on: str | None, fields: str, words: str
) -> None:
    when = parse(every, at, on)
    assert (cron_fields(when), when.words()) == (fields, words)


@settings(deadline=None, max_examples=60)
@given(WHENS, TIMES)
def test_the_fields_for_cron_match_the_moments_and_nothing_else(when: When, now_s: float) -> None:
    day = datetime.fromtimestamp(now_s, timezone.utc).date()
    minutes, hours, _, _, weekdays = (
        set(range(60)) if f == "*" else {int(n) for n in f.split(",")} for f in cron_fields(when).split()
    )
    matched = {
        f"{day.isoformat()}T{hour:02d}{minute:02d}"
        for hour in hours & set(range(24))
        for minute in minutes
        if (day.weekday() + 1) % 7 in weekdays
    }
    assert matched == {m.name for m in moments(when, day, timezone.utc)}


@pytest.mark.parametrize(
    ("every", "spread", "fields"),
    [("day", 13, "3-59/5 * * * *"), ("10m", 5, "0-59/5 * * * *"), ("5m", 3, "* * * * *")],
)
def test_cron_looks_every_few_minutes_not_all_schedules_in_the_same(
    every: str, spread: int, fields: str
) -> None:
    assert poll_fields(parse(every), spread) == fields


@pytest.mark.parametrize(
    ("every", "at", "on", "said"),
    [
        ("fortnight", None, None, "--every fortnight: allowed is day, week, weekday, hour, or an interval"),
        ("7h", None, None, "--every 7h: allowed is"),
        ("60m", None, None, "--every 60m: allowed is"),
        ("0m", None, None, "--every 0m: allowed is"),
        ("-5m", None, None, "--every -5m: allowed is"),
        ("day", "24:00", None, "--at 24:00: is no time of day; write it as HH:MM"),
        ("day", "2", None, "--at 2: is no time of day; write it as HH:MM"),
        ("day", None, "sunday", "--on sunday: means something only with --every week"),
        ("week", None, "s", "--on s: is no day of the week, allowed: monday, tuesday"),
        ("week", None, "someday", "--on someday: is no day of the week"),
    ],
)
def test_what_is_no_time_is_refused_with_what_is_allowed(
    every: str, at: str | None, on: str | None, said: str
) -> None:
    with pytest.raises(WhenError) as caught:
        parse(every, at, on)
    assert str(caught.value).startswith(said)


def test_the_zone_is_that_of_the_environment_where_others_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Europe/Berlin")
    assert (zone_name(), zone_of(zone_name())) == ("Europe/Berlin", BERLIN)
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    assert zone_name() == ""
    assert zone_of("Mars/Olympus") is None


def test_without_a_zone_local_time_of_this_machine_is_meant() -> None:
    now_s = datetime(2026, 6, 1, 12, 0).timestamp()
    assert last_due(parse("day", "11:00"), now_s) == Moment(
        "2026-06-01T1100", datetime(2026, 6, 1, 11, 0).timestamp()
    )
