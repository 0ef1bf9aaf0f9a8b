"""Where the files that are not Python live: templates and the configurations that come with the harness.

In a checkout they are the top-level folders `sbatch_templates/` and `configs/`, where people look for
them; in an installed wheel they travel inside the package. Only this module knows about both. It does
not read the files, and does not fall back to any third place.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def templates_dir() -> Path:
    """The folder of the sbatch templates (`base.sh.j2` and those that override its blocks)."""
    return _locate("sbatch_templates")


def configs_dir() -> Path:
    """The folder of the campaigns and sites that come with the harness (`campaigns/`, `sites/`)."""
    return _locate("configs")


def _locate(name: str) -> Path:
    packaged = _PACKAGE / name
    if packaged.is_dir():
        return packaged
    checkout = _PACKAGE.parent / name
    if checkout.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return checkout
    raise FileNotFoundError(
        f"the folder {name!r} of the harness is missing: neither {packaged} (an installed wheel) nor "
        f"{checkout} (a checkout) exists; install again with `pip install --force-reinstall hpc-harness`, "
        "or get a complete checkout"
    )
