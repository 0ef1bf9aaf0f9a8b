"""What collectives send and what must arrive: against a simulation of the operation on all ranks at once."""

from collections.abc import Sequence

import numpy as np
import pytest

from harness.workloads import OPERATIONS
from harness.workloads.exchange import TYPES, Part, Pattern, Shape, hashes, pattern

MOVING = [name for name in OPERATIONS if name != "barrier"]


def values(parts: Sequence[Part], draw: Pattern, elements: int) -> np.ndarray:
    table = np.array(draw.values)[hashes(elements, len(draw.values))]
    return np.concatenate(
        [np.zeros(0, int), *(table[p.first : p.first + p.length] * p.weight for p in parts)]
    )


def done(operation: str, sent: list[np.ndarray]) -> list[np.ndarray]:
    """The operation itself, by its definition."""
    world, nothing = len(sent), np.zeros(0, int)
    if operation == "all-reduce":
        return [sum(sent)] * world
    if operation == "reduce":
        return [sum(sent)] + [nothing] * (world - 1)
    if operation == "broadcast":
        return [sent[0]] * world
    if operation == "all-gather":
        return [np.concatenate(sent)] * world
    if operation == "gather":
        return [np.concatenate(sent)] + [nothing] * (world - 1)
    if operation == "scatter":
        return np.split(sent[0], world)
    if operation == "reduce-scatter":
        return np.split(sum(sent), world)
    if operation == "all-to-all":
        blocks = [np.split(s, world) for s in sent]
        return [np.concatenate([blocks[s][r] for s in range(world)]) for r in range(world)]
    return [sent[r - 1] for r in range(world)]


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("operation", MOVING)
def test_what_must_arrive_is_what_the_operation_makes_of_what_is_sent(operation: str, world: int) -> None:
    shape, elements = Shape(operation, "float32", world), world * 40
    draw = pattern(shape, 7, 3, 4 * elements)
    sent = [values(shape.sent(r, elements, draw.weights), draw, elements) for r in range(world)]
    for rank, expected in enumerate(done(operation, sent)):
        assert np.array_equal(expected, values(shape.received(rank, elements, draw.weights), draw, elements))
        assert (expected > 0).all()  # so that a buffer of zeros is wrong everywhere


@pytest.mark.parametrize("dtype", TYPES)
def test_every_partial_sum_is_exact(dtype: str) -> None:
    for world in (1, 2, 7, 17):
        shape = Shape("all-reduce", dtype, world)
        draw = pattern(shape, 1, 0, 4096)
        assert max(draw.values) * sum(draw.weights) <= TYPES[dtype].exact


def test_neighbouring_ranks_differ_in_weight_and_positions_in_pattern() -> None:
    shape = Shape("all-reduce", "float32", 300)
    assert shape.primes == (31, 127)
    for step in range(50):
        draw = pattern(shape, 7, step, 4096)
        assert set(range(1, 32)) == set(draw.values)
        assert all(len(set(draw.weights[at : at + 127])) == 127 for at in range(300 - 127))


def test_draws_depend_on_seed_operation_step_and_size() -> None:
    shape, other = Shape("all-reduce", "float32", 4), Shape("reduce", "float32", 4)
    drawn = [pattern(*place) for place in ((shape, 7, 3, 64), (other, 7, 3, 64), (shape, 8, 3, 64),
                                          (shape, 7, 4, 64), (shape, 7, 3, 68))]  # fmt: skip
    assert len({(d.values, d.weights) for d in drawn}) == len(drawn)
    assert pattern(shape, 7, 3, 64) == drawn[0]
