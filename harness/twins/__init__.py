"""Twins that were run before: an undisturbed run of the same case, code and site need not be run again.

A twin is planned only so that a case with faults can be compared with it. When it has passed, what it
recorded is kept (``keep``); a later run of the same case by the same code on the same site takes those records
instead of a job (``use``). They are judged there as if they had been made there, and the run says where they
came from. Planning knows nothing of all this: a plan, its case ids and its cost are the same on every machine.
"""

from __future__ import annotations

from harness.twins.cache import Cache as Cache
from harness.twins.keeping import keep as keep
from harness.twins.keeping import keepable as keepable
from harness.twins.key import keys as keys
from harness.twins.taking import Origin as Origin
from harness.twins.taking import cached as cached
from harness.twins.taking import kept as kept
from harness.twins.taking import less as less
from harness.twins.taking import use as use
