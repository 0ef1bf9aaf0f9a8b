"""A schedule, to be changed in one place. Not a test."""

from __future__ import annotations

from dataclasses import replace

from harness.schedule.folder import Spec

WEEKLY = Spec(
    campaign="/files/weekly.yaml",
    site="/files/alps.yaml",
    campaign_name="weekly",
    site_name="alps",
    every="week",
    at="02:00",
    on="sunday",
    zone="UTC",
    how="cron",
    keep=30,
    mail="",
    mail_on="fail",
)
DAILY = replace(WEEKLY, every="day", on="", keep=2)
