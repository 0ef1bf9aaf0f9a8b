"""A results file in which every text is an attack on whoever shows it. Not a test."""

from __future__ import annotations

import json

from tests.unit.results_factory import allreduce, halo, small, telemetry
from tests.unit.results_tables import START_NS, Campaign

# What a page, a shell, a terminal or an XML reader might take for more than text.
HOSTILE = (
    "<script>document.documentElement.dataset.pwned='1'</script>",
    "\"'><img src=x onerror=\"document.documentElement.dataset.pwned='1'\">",
    "</pre></style></title></svg><svg onload=alert(1)>",
    "]]><!-- & &amp; {{ 7*7 }} {% raw %} $x^{2$ \\frac",
    "\x1b[31mred\x1b[0m \x07bell \x85 \ufffe \u202eevil\u202c \u200b",
    "Größe 数 😀 " + "long" * 60,
    "https://evil.example/x.js",
)


def hostile() -> Campaign:
    """A campaign in which every text of the file is an attack."""
    campaign = small()
    allreduce(campaign, 2, 0, START_NS)
    for nodes in (1, 2):
        halo(campaign, "strong", nodes, 0, START_NS)
    telemetry(campaign)
    everything = " ".join(HOSTILE)
    case = campaign.find("cases", case_id="train-r0")
    campaign.event(case, 0, 0, "rank.started", START_NS, everything, versions={everything: everything})
    campaign.check(case, 0, 0, everything, False, expected=everything, observed=everything, detail=everything)
    keep = {
        "case_id",
        "workload",
        "scaling_mode",
        "twin",
        "kind",
        "outcome",
        "expect",
        "fault_id",
        "requested_kind",
    }
    keep |= {
        "faults",
        "gates",
        "data",
        "evidence",
        "job_key",
        "status",
        "step_ids",
        "rank_nodes",
        "source",
        "host",
    }
    for name, rows in campaign.tables.items():
        for number, row in enumerate(rows):
            for column, value in row.items():
                if not isinstance(value, str) or column in keep or (name, column) == ("attempts", "nodes"):
                    continue
                row[column] = f"{HOSTILE[number % len(HOSTILE)]}{value}"
    hosts = {old: campaign.tables["nodes"][i]["name"] for i, old in enumerate(("n1", "n2", "n3"))}
    for attempt in campaign.tables["attempts"]:
        for column in ("nodes", "rank_nodes"):
            attempt[column] = json.dumps([hosts[n] for n in json.loads(attempt[column])])
        attempt["step_ids"] = json.dumps([everything])
    for event in campaign.tables["events"]:
        event["host"] = hosts.get(event["host"], event["host"])
    for fault in campaign.tables["faults"]:
        fault.update(
            target=everything,
            nodes=json.dumps([hosts["n2"]]),
            trigger=everything,
            blamed=everything,
            evidence=json.dumps({everything: everything}),
        )
    for case in campaign.tables["cases"]:
        case["params"] = json.dumps({everything: everything})
    for name, value in campaign.attributes.items():
        if isinstance(value, str) and name not in ("launcher", "environment"):
            campaign.attributes[name] = everything + value
    campaign.attributes["environment"] = json.dumps({everything: {everything: 1}})
    return campaign
