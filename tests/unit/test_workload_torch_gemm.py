"""torch.gemm: exact products pass in every type, and a wrong element anywhere is found."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

sys.path.insert(0, str(Path(__file__).parent))
from workload_driver import Plan, fork_ranks  # noqa: E402

from harness.workloads import torch_gemm  # noqa: E402
from harness.workloads.torch_gemm import EXACT, LARGEST, factors, highest, nonzeros  # noqa: E402

SIZES, STEPS = [1, 33, 100], 3


def plan(world: int, dtype: str = "float32") -> Plan:
    return Plan("torch.gemm", {"matrix_size": SIZES, "dtype": dtype}, STEPS, world)


def name(size: int) -> str:
    return f"product of {size} x {size}: wrong rows"


@pytest.mark.parametrize("dtype", EXACT)
def test_right_products_pass_in_every_type(dtype: str, tmp_path: Path) -> None:
    reports = fork_ranks(plan(2, dtype), tmp_path)
    assert [r.error for r in reports] == ["", ""]
    for report in reports:
        assert [(c, v["passed"], v["observed"]) for c, v in report.checks.items()] == [
            (name(size), True, 0) for size in SIZES
        ]
        rows = report.tables["products"]
        assert [(r["step"], r["matrix_size"]) for r in rows] == [(s, n) for s in range(STEPS) for n in SIZES]
        assert all(r["flop_per_s"] == 2e9 * r["matrix_size"] ** 3 / r["product_ns"] for r in rows)


def one_element_off(product: Any, a: Any, b: Any) -> Any:
    product[-1, 0] += 1
    return product


def transposed(product: Any, a: Any, b: Any) -> Any:
    return product.T.contiguous()


def factors_swapped(product: Any, a: Any, b: Any) -> Any:
    return b @ a


def one_term_dropped(product: Any, a: Any, b: Any) -> Any:
    product[0] -= a[0, 0] * b[0]
    return product


def not_a_number(product: Any, a: Any, b: Any) -> Any:
    product[2, 3] = float("nan")
    return product


@pytest.mark.parametrize(
    "fault", [one_element_off, transposed, factors_swapped, one_term_dropped, not_a_number]
)
def test_a_wrong_product_is_found_in_every_type(fault: Callable[..., Any], tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):

        def spoil(workload: Any) -> None:
            def multiply(a: Any, b: Any, out: Any) -> None:
                real(a, b, out)
                if len(a) == 100:
                    out[:] = fault(out.clone(), a, b)

            real, workload.multiply = workload.multiply, multiply

        (report,) = fork_ranks(plan(1, dtype), tmp_path / dtype, spoil)
        assert report.error == ""
        check = report.checks[name(100)]
        assert (check["passed"], check["observed"] > 0) == (False, True)
        assert check["detail"].startswith("first at step 0, row ")
        assert report.checks[name(33)]["passed"]


@pytest.mark.parametrize("dtype", EXACT)
def test_every_sum_of_the_proof_is_exact(dtype: str) -> None:
    """Against integers of any length."""
    a, b, x = (
        [[int(v) for v in row] for row in m.reshape(-1, m.shape[-1]).tolist()]
        for m in factors(3, 0, 1, 60, dtype)
    )
    assert max(sum(v != 0 for v in row) for row in a) <= nonzeros(60, dtype)
    product = [
        [sum(p * q for p, q in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a
    ]
    assert max(abs(v) for row in product for v in row) <= EXACT[dtype]
    expected = [sum(p * q for p, q in zip(row, x[0], strict=True)) for row in product]
    tensors = factors(3, 0, 1, 60, dtype)
    assert [float(v) for v in expected] == (tensors[0] @ (tensors[1] @ tensors[2])).tolist()


def test_the_chance_to_miss_is_small_and_stated() -> None:
    assert highest(2048, "float32") >= 2**20
    assert nonzeros(2048, "bfloat16") * LARGEST**2 <= 2**8
    assert f"{torch_gemm.__doc__}".count("2^20") == 1
