"""Campaigns that run unattended, at set times: when, the folder of a schedule, a tick, and what is installed.

``when``, ``past`` and ``entries`` are pure. ``tick`` is what cron, scrontab or a job that submits itself
again calls: cheap when there is nothing to do. A schedule is no daemon; between two ticks nothing runs.
"""
