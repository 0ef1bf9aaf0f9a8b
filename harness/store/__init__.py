"""``results.h5``: its schema with version and history (``schema``), how it is written, how it is read.

The one home of HDF5: everything else gets numpy arrays and plain rows.
"""

from harness.store.reader import Results, open_results
from harness.store.schema import (
    ADDED,
    HISTORY,
    SAMPLE_KEYS,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    TABLES,
    TEXT,
    Column,
    Field,
    StoreError,
    Table,
    samples_of,
)
from harness.store.writer import Writer

__all__ = [
    "ADDED",
    "HISTORY",
    "SAMPLE_KEYS",
    "SCHEMA_NAME",
    "SCHEMA_VERSION",
    "TABLES",
    "TEXT",
    "Column",
    "Field",
    "Results",
    "StoreError",
    "Table",
    "Writer",
    "open_results",
    "samples_of",
]
