"""Campaigns built in Python: the same objects as files give, with the same rules and the same words.

    from harness.build import campaign, group, to_yaml

    weekly = campaign(
        "weekly",
        seed=20260101,
        packing={"mode": "interleaved"},
        groups=[
            group("smoke", "torch.collectives", nodes=2, role="pre-check"),
            group("grid", "mpi.halo", nodes=2, repeats=3, axes=[{"rows": [256, 512]}, {"columns": [256, 512]}]),
        ],
    )
    Path("weekly.yaml").write_text(to_yaml(weekly))

Keywords are the keys of a campaign file, values what a file may hold: lists or tuples, mappings, or parts of
``harness.model.campaign`` such as ``Scaling``. It writes nothing and submits nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.config import ConfigError, build_campaign, build_group, to_yaml
from harness.model.campaign import Campaign, Group
from harness.model.fields import Frozen

__all__ = ["ConfigError", "campaign", "group", "to_yaml"]


def campaign(name: str, *, seed: int, groups: Iterable[Group | Mapping[str, Any]], **more: Any) -> Campaign:
    """A campaign.

    Args:
        name: its short name.
        seed: where all randomness comes from.
        groups: from ``group``, or as keys and values.
        more: any other key of a campaign file.

    Raises:
        ConfigError: everything that is wrong with it, at once.
    """
    data = {"schema": 1, "name": name, "seed": seed, "groups": list(groups), **more}
    return build_campaign(_plain(data), f"campaign {name!r}")


def group(name: str, workload: str, **more: Any) -> Group:
    """A group.

    Args:
        name: its short name, unique in its campaign.
        workload: name of a workload.
        more: any other key of a group in a campaign file.

    Raises:
        ConfigError: everything that is wrong with it, at once.
    """
    return build_group(_plain({"name": name, "workload": workload, **more}), f"group {name!r}")


def _plain(value: Any) -> Any:
    """As a file would hold it: lists as tuples, models as what was written in them."""
    if isinstance(value, Frozen):
        return _plain(value.model_dump(mode="json", exclude_unset=True))
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(inner) for inner in value)
    return value
