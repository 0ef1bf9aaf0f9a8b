"""The table of metrics: one definition of each name."""

from __future__ import annotations

import ast
import inspect
from collections import Counter

from harness.model import metrics


def test_no_metric_is_defined_twice() -> None:
    """Counted in the source, since of two definitions the table would silently keep the last."""
    (table,) = (
        node
        for node in ast.walk(ast.parse(inspect.getsource(metrics)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_table"
    )
    names = Counter(ast.literal_eval(row.args[0]) for row in table.args if isinstance(row, ast.Call))
    assert [name for name, times in names.items() if times > 1] == []
    assert set(names) == set(metrics.METRICS)
