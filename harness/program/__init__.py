"""For a user's own Python program: time its steps, record its figures, save and restore it, in three lines.

    from harness.program import steps, metric
    for step in steps(100):
        metric("loss", train(step), unit="1", direction="lower")

Under the harness (workload ``command``) each step and each figure becomes a raw sample, and the step is
the program's progress. Anywhere else nothing is recorded, and the program does what it did before.

A program that is to survive faults saves itself, and begins with what it saved (``checkpoints``):

    from harness.program import steps, save, restore
    folder = restore()                            # None: from the beginning
    state = load(folder / "state") if folder else new()
    for step in steps(100):                       # goes on behind the step that was saved
        state = work(state)
        with save(step) as folder:                # committed whole, or not at all
            store(state, folder / "state")

That a restored run is the same as an undisturbed one can be proved: by digests of the live state, by which data
each step used, and by its final answers (``steps(..., state=...)``, ``digest``, ``batch``, ``answer``):

    for step in steps(100, state=lambda: {"weights": weights, "random": random.getstate()}, digest_every=10):
        batch(ids)
        ...
    answer("loss", loss)

It can do faults to itself (``faults``):

    from harness.program import faults
    with faults.inject("rank.kill", rank=2):
        ...

This folder runs in the program's own interpreter, which may be an old one: standard library only, nothing
newer than Python 3.6, nothing else of the harness.
"""

import math
import re
from typing import Any, Callable, Dict, Iterator, Optional

from harness.program import armed, checkpoints, digests, faults, lines
from harness.program.checkpoints import restore, save

__all__ = ["answer", "batch", "check", "digest", "faults", "metric", "restore", "save", "steps"]

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}\Z")
_DIRECTIONS = ("higher", "lower", "neither")

_defined: Dict[str, Dict[str, Optional[str]]] = {}


def steps(
    count: int,
    first: Optional[int] = None,
    state: Optional[Callable[[], Any]] = None,
    digest_every: int = 0,
) -> Iterator[int]:
    """Count the steps from ``first`` to ``count``, timing each and saying how far the program is.

    Args:
        count: steps of the whole program.
        first: step to begin with, for a program that resumes from its own files; unless told otherwise the one
            behind what ``restore`` gave, or 0.
        state: gives the live state, all that the next steps depend on (random state included): numbers, strings,
            bytes, arrays, tensors, or dicts, lists and tuples of these. Its digest is recorded at the beginning, with
            each checkpoint, and at the end, and must be that of the undisturbed twin.
        digest_every: its digest is recorded after every so many steps besides.

    Yields:
        The number of each step, from ``first`` to ``count - 1``.

    Raises:
        ValueError: digest_every without a state.
        TypeError: the state holds what has no digest.
    """
    if digest_every and state is None:
        raise ValueError(
            "digest_every = %d, but of which state? give steps a function: state=" % digest_every
        )
    first = checkpoints.first_step() if first is None else first
    checkpoints.watch(state)
    if state is not None:
        digest(state(), first - 1)
    for step in range(first, count):
        lines.begin(step, count)
        armed.step(step)
        yield step
        lines.end()
        if state is not None and digest_every and (step + 1) % digest_every == 0:
            digest(state(), step)
    if state is not None:
        answer("state", state())


def digest(value: Any, step: Optional[int] = None) -> str:
    """Record the digest of the live state behind a step: the one that is being done, unless told otherwise.

    Returns:
        The digest, as hex.

    Raises:
        TypeError: it has none; see ``steps`` for what has.
    """
    found = digests.of(value)
    after = (lines.step() if step is None else step) + 1
    lines.say(lines.stamped({"state_digest": after, "value": found}))
    return found


def batch(value: Any) -> None:
    """Say which data the step that is being done uses, such as the ids of its samples: none may be skipped or twice.

    Raises:
        TypeError: it has no digest; see ``steps`` for what has.
    """
    lines.used(digests.number(value))


def answer(name: str, value: Any) -> None:
    """Record a final answer, which must be that of the undisturbed twin: a number or a text, of all else the digest.

    Raises:
        TypeError: it has no digest; see ``steps`` for what has.
    """
    plain = isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= 200)
    text = str(value) if plain else digests.of(value)
    lines.say(lines.stamped({"answer": str(name), "value": text}))


def metric(
    name: str,
    value: Any,
    unit: Optional[str] = None,
    direction: Optional[str] = None,
    definition: Optional[str] = None,
) -> None:
    """Record one figure, of the step that is being done.

    What the campaign declares (``from: program``) need not be said again.

    Args:
        name: a-z 0-9 _, its unit last: ``bandwidth_mb_per_s``.
        value: a finite number.
        unit: at the first use: its unit; "1", a plain number, unless told otherwise.
        direction: at the first use: which way is better, "higher", "lower" or "neither".
        definition: at the first use: what it is, in one sentence.

    Raises:
        ValueError: the name or the value cannot be recorded, or the metric was defined otherwise before.
    """
    said = {"unit": unit, "direction": direction, "definition": definition}
    if name not in _defined:
        if not _NAME.match(name):
            raise ValueError(
                f"{name!r} is no name of a metric, allowed: a-z 0-9 _, the first a letter; rename it"
            )
        if direction is not None and direction not in _DIRECTIONS:
            raise ValueError(f"metric {name}: direction {direction!r}, allowed: {', '.join(_DIRECTIONS)}")
        _defined[name] = said
        lines.say({"define": name, **said})
    for key, word in said.items():
        first = _defined[name][key]
        if word is not None and word != first:
            raise ValueError(
                f"metric {name}: {key} {word!r}, but at its first use {first!r}; one metric has one {key}"
            )
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"metric {name}: {value!r} is not a finite number")
    lines.say({"metric": name, "value": number, "step": max(lines.step(), 0)})


def check(name: str, passed: bool, expected: object = "", observed: object = "") -> None:
    """Record one check of the program's own answer. A failed one fails the case; it does not stop the program."""
    lines.say(
        {"check": str(name), "passed": bool(passed), "expected": str(expected), "observed": str(observed)}
    )
