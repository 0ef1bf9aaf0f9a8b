"""Numbers as people read them: enough digits to tell them apart, and none of a rounding error."""

from __future__ import annotations

from analysis import text


def test_numbers_that_are_read_together_have_the_digits_that_tell_them_apart() -> None:
    assert text.together((1.319e-9, 0.0, 0.001623)) == ["0", "0", "0.0016"]
    assert text.together((278.043, 232.992, 312.058)) == ["278", "233", "312"]
    assert text.together((5.252e-15, 5.252e-15, -3e-16)) == ["0", "0", "0"]
    assert text.together((-0.0086, 0.009), sign=True) == ["-0.009", "+0.009"]
    assert text.together((0.25,)) == ["0.250"]
    assert text.together((0.1, float("inf"))) == ["0.100", "unknown"]


def test_small_shares_and_probabilities_keep_their_digits() -> None:
    assert [text.fine_percent(x) for x in (0.386, 0.0012, 0.0, 1e-17)] == [
        "38.6 %",
        "0.120 %",
        "0.0 %",
        "0.0 %",
    ]
    assert [text.chance(p) for p in (0.0, 0.0009, 0.012)] == ["p < 0.001", "p < 0.001", "p = 0.012"]
    assert (text.digits(870.4, 2), text.digits(1.44, 2), text.digits(0.00479)) == ("870", "1.4", "0.00479")
