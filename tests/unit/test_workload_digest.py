import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.runtime import digest

ROOT = Path(__file__).parents[2]


def test_equal_trees_have_equal_digests_and_the_order_of_a_dict_does_not_matter() -> None:
    tree = {"a": [1, 2.5, None, True, "x", b"y"], "b": {0: np.arange(3), "0": np.float32(1)}}
    same = {"b": {"0": np.float32(1), 0: np.arange(3)}, "a": (1, 2.5, None, True, "x", b"y")}
    assert digest.of(tree) == digest.of(same)


def test_whatever_differs_in_kind_type_shape_or_order_differs_in_digest() -> None:
    values = [
        None, True, False, 1, 0, 1.0, 0.0, -0.0, "1", "", b"1", b"", float("nan"), float("inf"),
        [], {}, [[]], [1], [1, 2], [2, 1], [[1], 2], [1, [2]], ["ab", "c"], ["a", "bc"], {"a": 1}, {"a": 2},
        {1: "a"}, {"1": "a"}, ["a", 1], {"a": 1, "b": 2}, {"a": 2, "b": 1},
        np.zeros(4, "f8"), np.zeros(4, "i8"), np.zeros((2, 2), "f8"), np.zeros((4, 1), "f8"),
        np.zeros(8, "f4"), np.array([0, 0, 0, -0.0]), np.zeros(0), np.zeros((0, 3)), np.array(0.0), np.zeros(4, ">f8"),
    ]  # fmt: skip
    digests = [digest.of(value) for value in values]
    assert len(set(digests)) == len(values)


def test_a_view_has_the_digest_of_its_copy() -> None:
    grid = np.arange(24.0).reshape(4, 6)
    for view in (grid.T, grid[::2, 1:], grid[:, ::-1], grid.astype(">i4").T):
        assert digest.of(view) == digest.of(view.copy(order="C"))


@pytest.mark.parametrize("value", [{1, 2}, object(), {(1, 2): 3}, {True: 1}, [1, {2}]])
def test_what_has_no_canonical_encoding_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="encod"):
        digest.of(value)


def test_tensors_of_every_type_enter_with_type_shape_and_content() -> None:
    torch = pytest.importorskip("torch")
    tensors = [torch.zeros(4, dtype=t) for t in (torch.float32, torch.int32, torch.bfloat16, torch.float16)]
    tensors += [torch.zeros(2, 2), torch.zeros(()), torch.zeros(0), torch.zeros(0, 3), -torch.zeros(4)]
    assert len({digest.of(t) for t in tensors}) == len(tensors)
    grid = torch.arange(24.0).reshape(4, 6).requires_grad_()
    assert digest.of(grid.T) == digest.of(grid.T.contiguous()) == digest.of(grid.T.detach().clone())
    assert digest.of(grid) != digest.of(grid.T)


def test_a_digest_is_xxh3_128_of_kind_length_and_content() -> None:
    xxhash = pytest.importorskip("xxhash")
    assert digest.of({"a": [1]}) == xxhash.xxh3_128_hexdigest(b"dict 1 0:str 1:alist 1 0:int 1:1")
    assert len(digest.of(None)) == digest.HEX_DIGITS


def test_numbers_do_not_change_between_versions() -> None:
    """Seeds come from them: another encoding is another experiment, and breaks every committed digest."""
    assert [digest.number(7), digest.number(7, "rank", 0)] == [6160466290431932346, 2764175028621180796]
    assert digest.number(1, 0) != digest.number(0, 1) != digest.number("0", 1)


def test_importing_it_loads_neither_torch_nor_numpy_nor_xxhash() -> None:
    code = "import sys, harness.runtime.digest; print([n for n in ('torch', 'numpy', 'xxhash') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
