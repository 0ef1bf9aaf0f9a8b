"""When a schedule is due: moments of local time, and the last and the next of them. Pure. Standard library only.

A moment is a time of day as a clock on the wall shows it. Each happens once: where the clocks are put
back, at the first of the two times; where they are put forward over it, as long after the change as it
would have been after it. It refuses what cron cannot say: intervals that do not divide a day evenly.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
EVERY = 'day, week, weekday, hour, or an interval that divides an hour or a day, such as "30m" or "6h"'
DEFAULT_AT = "02:00"
DAY_MIN = 24 * 60
POLL_MIN = 5  # how often cron looks, where moments are far enough apart
NAME = re.compile(r"\d{4}-\d\d-\d\dT\d{4}")  # of a moment, and of the run folder that it makes


class WhenError(ValueError):
    """These are no times that a schedule can have; the message says which word is wrong, and what is allowed."""


@dataclass(frozen=True)
class Moment:
    """One moment at which a schedule is due."""

    name: str
    """Local time, as ``2026-03-29T0200``: the name of the run folder."""
    epoch_s: float
    """The same, for arithmetic."""

    @property
    def words(self) -> str:
        """For people: ``2026-03-29 02:00``."""
        return f"{self.name[:10]} {self.name[11:13]}:{self.name[13:]}"


@dataclass(frozen=True)
class When:
    """The moments of a schedule."""

    every: str
    """day, week, weekday, hour, or an interval such as 6h or 30m."""
    at: str
    """The first moment of a day, HH:MM."""
    on: str = ""
    """The day of a week; "" for all others."""

    @property
    def days(self) -> frozenset[int]:
        """Weekdays that have moments; Monday is 0."""
        if self.every == "week":
            return frozenset({WEEKDAYS.index(self.on)})
        return frozenset(range(5 if self.every == "weekday" else 7))

    @property
    def interval_min(self) -> int:
        """Minutes between two moments of a day; a day where there is only one."""
        if self.every in ("day", "week", "weekday"):
            return DAY_MIN
        return 60 if self.every == "hour" else _interval_min(self.every)

    @property
    def reach_days(self) -> int:
        """Days within which there is a moment for certain; one more than it seems, for changes of the clocks."""
        return {"week": 8, "weekday": 4}.get(self.every, 2)

    @property
    def minutes(self) -> tuple[int, ...]:
        """The moments of a day, in minutes after midnight."""
        hours, minutes = self.at.split(":")
        first = (int(hours) * 60 + int(minutes)) % self.interval_min
        return tuple(range(first, DAY_MIN, self.interval_min))

    def words(self) -> str:
        """For people: ``every week on sunday at 02:00``."""
        if self.interval_min < DAY_MIN:
            return f"every {self.every}, at {_clock(self.minutes[0])} and so on"
        return f"every {self.every}" + (f" on {self.on}" if self.on else "") + f" at {self.at}"


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _interval_min(text: str) -> int:
    match = re.fullmatch(r"([1-9]\d{0,2})([mh])", text)
    if match is None:
        return 0
    number, whole = int(match[1]), 60 if match[2] == "m" else 24
    if whole % number or number == whole:
        return 0
    return number if match[2] == "m" else number * 60


def parse(every: str, at: str | None = None, on: str | None = None) -> When:
    """The moments that a person asked for.

    Raises:
        WhenError: a word is unknown, out of range, or means nothing beside the others.
    """
    every = every.strip().lower()
    daily = every in ("day", "week", "weekday")
    if not daily and every != "hour" and not _interval_min(every):
        raise WhenError(f"--every {every}: allowed is {EVERY}")
    given = (at if at is not None else DEFAULT_AT if daily else "00:00").strip()
    match = re.fullmatch(r"(\d{1,2}):(\d\d)", given)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise WhenError(f"--at {given}: is no time of day; write it as HH:MM, 00:00 to 23:59")
    day = ""
    if every == "week":
        day = _weekday(on if on is not None else "sunday")
    elif on is not None:
        raise WhenError(
            f"--on {on}: means something only with --every week; leave it out, or write --every week"
        )
    return When(every, f"{int(match[1]):02d}:{match[2]}", day)


def _weekday(text: str) -> str:
    found = [name for name in WEEKDAYS if len(text) >= 3 and name.startswith(text.strip().lower())]
    if len(found) != 1:
        raise WhenError(f"--on {text}: is no day of the week, allowed: {', '.join(WEEKDAYS)}")
    return found[0]


def last_due(when: When, now_s: float, zone: tzinfo | None = None) -> Moment:
    """The newest moment that has come.

    Args:
        when: the schedule.
        now_s: seconds since the epoch.
        zone: whose local time is meant; None: that of this machine.
    """
    today = datetime.fromtimestamp(now_s, zone).date()
    past = (
        moment
        for days in range(-1, when.reach_days + 1)
        for moment in moments(when, today - timedelta(days), zone)
        if moment.epoch_s <= now_s
    )
    return max(past, key=lambda moment: (moment.epoch_s, moment.name))


def next_due(when: When, now_s: float, zone: tzinfo | None = None) -> Moment:
    """The first moment that is still to come; arguments as ``last_due``."""
    today = datetime.fromtimestamp(now_s, zone).date()
    future = (
        moment
        for days in range(-1, when.reach_days + 1)
        for moment in moments(when, today + timedelta(days), zone)
        if moment.epoch_s > now_s
    )
    return min(future, key=lambda moment: (moment.epoch_s, moment.name))


def moments(when: When, day: date, zone: tzinfo | None = None) -> list[Moment]:
    """The moments of one day."""
    if day.weekday() not in when.days:
        return []
    midnight = datetime(day.year, day.month, day.day)
    return [_moment(midnight + timedelta(minutes=m), zone) for m in when.minutes]


def moment_now(now_s: float, zone: tzinfo | None = None) -> Moment:
    """This very minute, as a moment."""
    start_s = now_s - now_s % 60
    return Moment(_name(datetime.fromtimestamp(start_s, zone)), start_s)


def _moment(wall: datetime, zone: tzinfo | None) -> Moment:
    return Moment(_name(wall), wall.replace(tzinfo=zone).timestamp())  # fold=0: the first of two equal times


def _name(wall: datetime) -> str:
    return wall.strftime("%Y-%m-%dT%H%M")


def cron_fields(when: When) -> str:
    """The five fields of cron that name exactly these moments."""
    minutes = sorted({m % 60 for m in when.minutes})
    hours = sorted({m // 60 for m in when.minutes})
    days = "*" if len(when.days) == 7 else ",".join(str((d + 1) % 7) for d in sorted(when.days))
    return f"{_listed(minutes, 60)} {_listed(hours, 24)} * * {days}"


def poll_fields(when: When, spread: int) -> str:
    """The five fields of cron for a look every few minutes.

    Args:
        when: moments less than ten minutes apart are looked for every minute.
        spread: any number of this schedule's own, so that not all schedules look in the same minute.
    """
    if when.interval_min < 2 * POLL_MIN:
        return "* * * * *"
    return f"{spread % POLL_MIN}-59/{POLL_MIN} * * * *"


def _listed(numbers: list[int], whole: int) -> str:
    return "*" if len(numbers) == whole else ",".join(str(n) for n in numbers)


def zone_name() -> str:
    """The name of this machine's time zone, such as Europe/Berlin; "" where it has none that others know."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        place = Path("/etc/localtime")
        parts = place.resolve().parts if place.is_symlink() else ()
        name = "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else ""
    return name if zone_of(name) is not None else ""


def zone_of(name: str) -> tzinfo | None:
    """The zone of that name; None, which means this machine's own, for "" and for one that is not known here."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
