"""Parameters: type, text and range are checked before anything runs, with what is allowed in the words."""

import pytest

from harness.param_rules import wrong_value
from harness.workloads import OPERATIONS, REGISTRY


@pytest.mark.parametrize(
    ("value", "default", "allowed", "said"),
    [
        ("ring", "ring", ("ring", "pairs"), ""),
        ("rnig", "ring", ("ring", "pairs"), 'is not allowed, allowed: ring, pairs; did you mean "ring"?'),
        ((4, 8), (4,), (2, 8), ""),
        ((4, 9), (4,), (2, 8), "is out of range, allowed: 2 to 8; change it"),
        (0, 4, (1, 8), "is out of range, allowed: 1 to 8; change it"),
        (0.6, 0.1, (1e-14, 0.5), "is out of range, allowed: 1e-14 to 0.5; change it"),
        ("4", 4, (1, 8), "must be a whole number, like the default 4; change it"),
        (3, 4, (), ""),
    ],
)
def test_a_value_is_checked_against_what_is_allowed(
    value: object, default: object, allowed: tuple[object, ...], said: str
) -> None:
    assert wrong_value(value, default, allowed) == said


@pytest.mark.parametrize("name", REGISTRY)
def test_a_workloads_own_defaults_are_allowed(name: str) -> None:
    entry = REGISTRY[name]
    assert set(entry.allowed) <= set(entry.defaults) and set(entry.later) <= set(entry.defaults)
    assert [wrong_value(v, v, entry.allowed.get(n, ())) for n, v in entry.defaults.items()] == [""] * len(
        entry.defaults
    )


def test_an_operation_that_does_not_exist_is_named() -> None:
    entry = REGISTRY["mpi.collectives"]
    said = wrong_value("allreduce", "all-reduce", entry.allowed["operation"])
    assert said == f'is not allowed, allowed: {", ".join(OPERATIONS)}; did you mean "all-reduce"?'
