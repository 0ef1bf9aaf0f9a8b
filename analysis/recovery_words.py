"""Recoveries in words, for a terminal: one fault's story, and the tables over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis import text, usefultime
from analysis.results import CampaignResults, names
from analysis.spread import Row

if TYPE_CHECKING:
    from analysis.detectors import Score
    from analysis.recovery import Recovery
    from analysis.saved import Saved


MOST_ATTEMPTS = 6  # of one case, beyond which a fault tells only the one that it hit and the next


def _known(value_s: float | None) -> str:
    return text.seconds(value_s) if value_s is not None else "unknown"


def story(results: CampaignResults, r: Recovery) -> str:
    """One fault: its facts, stamps, durations, buckets, and the attempts of its case."""
    asked = f" (asked for: {r.requested_kind})" if r.requested_kind != r.kind else ""
    facts = ", ".join(
        ("" if yes else "NOT ") + word
        for word, yes in (("requested", r.requested), ("observed", r.observed), ("healed", r.healed))
        if word != "healed" or yes or r.healable
    )
    lines = [
        f"{r.label}: {r.fault_id}, {r.kind}{asked} on {r.target or 'nothing'} at {r.trigger}, expected: {r.expect}",
        f"  {facts}",
    ]
    if r.detector:
        lines.append(f"  detected as {r.detector}, blamed: {r.blamed}")
    for s in r.stamps:
        since = "" if r.origin == "t1" else " since the request"
        value = f"{s.after_s:+.3f} s{since}" if s.after_s is not None else s.why
        lines.append(f"  {s.name:<7}{s.words:<42}{value}")
    for name, value_s in (
        ("detection latency", r.detection_s),
        ("attribution latency", r.attribution_s),
        ("time to restart", r.time_to_restart_s),
        ("time to recover", r.time_to_recover_s),
        ("degraded tail", r.degraded_tail_s),
    ):
        lines.append(f"  {name:<49}{_known(value_s)}")
    if r.time_to_recover_bound_s is not None:
        lines.append(f"  {'':<49}at most {text.seconds(r.time_to_recover_bound_s)}, since the request")
    lines += [
        f"    {f'{b.name}: {b.words}':<47}{_known(b.time_s)}" + (f" ({b.why})" if b.why else "")
        for b in r.buckets
    ]
    lines.append(f"  {'restart work: all of it but the queue':<49}{_known(r.restart_work_s)}")
    if r.lost.steps is not None and r.lost.rank_s is not None:
        lines.append(
            f"  {'lost work':<49}{text.count(r.lost.steps, 'step')}, {r.lost.rank_s:.3f} rank-seconds "
            f"({r.lost.words})"
        )
    else:
        lines.append(f"  {'lost work':<49}unknown {r.lost.words}")
    attempts = results.of_case("attempts", r.case_id)
    told = [a for a in attempts if len(attempts) <= MOST_ATTEMPTS or 0 <= a["index"] - r.hit_attempt <= 1]
    for a in told:
        done = f"steps {a['first_step']} to {a['last_step']}" if a["last_step"] >= 0 else "steps unknown"
        lines.append(
            f"  attempt {a['index']} (job {a['slurm_job_id'] or '-'}) on {','.join(names(a['nodes']))}: {done}, "
            f"{a['outcome']}{': ' if a['reason'] else ''}{a['reason']}"
        )
    if len(told) < len(attempts):
        lines.append(f"  {len(attempts) - len(told)} more attempts")
    return "\n".join(text.clean(line).replace("\n", " ") for line in lines)


def quantiles(found: Mapping[str, Any] | None) -> str:
    """p50, p95 and longest, as one cell of a table."""
    if found is None:
        return "unknown"
    return " / ".join(text.seconds(found[name]) for name in ("p50", "p95", "max")) + f" ({found['n']})"


def _table(name: str, rows: Sequence[Row]) -> str:
    header = (name, "faults", "recovered", "never", "detected", "to first step", "to recover", "tail")
    cells = [
        (
            row.name,
            row.faults,
            f"{row.recovered} of {row.counted}",
            row.censored,
            *(
                quantiles(row.figures[figure])
                for figure in ("detection_s", "time_to_restart_s", "time_to_recover_s", "degraded_tail_s")
            ),
        )
        for row in rows
    ]
    return text.columns(header, cells)


def _useful(b: usefultime.Beside) -> str:
    account = b.account

    def share(value: float | None) -> str:
        return text.percent(value) if value is not None else "unknown"

    lines = [
        f"useful time of {b.workload} with {b.policy}: measured {share(account.ettr)}, without the queue "
        f"{share(account.ettr_without_queue)}; the model, which knows no start-up of "
        f"the job, says {share(b.modelled)}" + (f" ({b.why})" if b.why else ""),
        f"  {text.count(account.cases, 'case')}, {text.seconds(account.wall_s)} in all, MTTF {_known(b.mttf_s)}, "
        f"checkpoint {_known(b.cost_s.value)} (n={b.cost_s.n}), restart {_known(b.restart_s.value)} "
        f"(n={b.restart_s.n}), interval {_known(b.interval_s.value)} (n={b.interval_s.n})",
        f"  best interval for these: Young {_known(b.young_s)}, Daly {_known(b.daly_s)}, renewal model "
        f"{_known(b.best_s)}, with {share(b.modelled_best)} useful",
    ]
    lines += [
        f"    {f'{name}: {usefultime.WORDS[name]}':<65}{text.seconds(value)}"
        for name, value in account.buckets.items()
    ]
    lines += [f"  left out: {why}" for why in account.why[:3]]
    return "\n".join(text.one_line(line, 300) if line[0] != " " else line for line in lines)


def together(
    policies: Sequence[Row],
    kinds: Sequence[Row],
    score: Score,
    checkpoints: Saved,
    useful: Sequence[usefultime.Beside],
    stamp: str,
) -> str:
    """Everything over all faults but the last lines: policies side by side, kinds, detectors, useful time."""
    parts = [
        "p50 / p95 / longest (n), of faults that were to be recovered from" + (f"; {stamp}" if stamp else ""),
        _table("policy", policies),
        _table("kind", kinds),
        f"detectors: {score.words}",
    ]
    if score.confusion:
        parts.append(text.columns(("what was done", "what was said", "n"), score.confusion, left=(0, 1)))
    parts += [f"checkpoints: {checkpoints.words}", *map(_useful, useful)]
    return "\n\n".join(parts)


def over(data: Mapping[str, Any]) -> str:
    """The overview of ``analysis.recovery``."""
    low, high = (text.percent(share) for share in data["rate_95"])
    lines = [
        f"all faults: {data['recovered']} of {data['counted']} that were observed recovered "
        f"(95 %: {low} to {high}), {data['never_recovered']} never"
    ]
    for name, words in (
        ("time_to_recover_s", "time to recover"),
        ("queue_s", "queue: of it waiting"),
        ("restart_work_s", "restart work: the rest"),
    ):
        s = data.get(name)
        shown = "unknown"
        if s is not None:
            median, p95, longest = (text.seconds(s[key]) for key in ("p50", "p95", "max"))
            shown = f"median {median}, p95 {p95}, longest {longest}, n={s['n']}"
        lines.append(f"  {words:<49}{shown}")
    return "\n".join(lines)
