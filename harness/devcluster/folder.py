"""Every path in a cluster's folder, its cookie, and how a folder is chosen and judged.

The cookie says "this is an emulated cluster", and is what allows faults that no other cluster may
see. A folder that holds foreign things and no cookie is never taken over. Standard library only, and
importable from a zip: jobs use it.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from harness.devcluster.errors import ClusterError

ENVIRONMENT_NAME = "HARNESS_CLUSTER"
_DEFAULT = Path(".harness") / "cluster"
# A Unix socket's path holds 107 bytes, and the longest of ours adds 16 to the folder's.
_LONGEST_FOLDER = 90


@dataclass(frozen=True)
class ClusterFolder:
    """The paths below `root`, which is absolute."""

    root: Path

    @property
    def cookie(self) -> Path:
        return self.root / "cookie.json"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def power_log(self) -> Path:
        return self.root / "power.jsonl"

    @property
    def faults(self) -> Path:
        """The heal ledger: a line for each change of each fault that the daemon did."""
        return self.root / "faults.jsonl"

    @property
    def control_socket(self) -> Path:
        return self.root / "control.sock"

    @property
    def etc(self) -> Path:
        """The cluster's /etc/slurm, and its passwd, group and hosts."""
        return self.root / "etc"

    @property
    def slurm_conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def run(self) -> Path:
        """Sockets and pid files of the head's daemons."""
        return self.root / "run"

    @property
    def munge_socket(self) -> Path:
        return self.run / "munge.sock"

    @property
    def munge_key(self) -> Path:
        return self.run / "munge.key"

    @property
    def marker(self) -> Path:
        """Where each of our mount namespaces mounts its marker; empty as the machine sees it."""
        return self.run / "marker"

    @property
    def freezer(self) -> Path:
        """Where a freezer hierarchy of our own is mounted, if the machine offers none."""
        return self.run / "freezer"

    @property
    def database(self) -> Path:
        return self.root / "mysql"

    @property
    def controller_state(self) -> Path:
        return self.root / "slurmctld"

    @property
    def devices(self) -> Path:
        """Files that stand for generic resources such as GPUs."""
        return self.root / "gres"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def shared(self) -> Path:
        """The shared file system of the cluster: the ordinary user's, the same on every node."""
        return self.root / "shared"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def command(self, verb: str, arguments: str = "") -> str:
        """The command that does this to this cluster, to be typed where we are now."""
        named = "" if choose(None) == self else f" --folder {shlex.quote(str(self.root))}"
        return f"harness cluster {verb}{named} {arguments}".rstrip()


def choose(given: str | None) -> ClusterFolder:
    """The folder on the command line, else $HARNESS_CLUSTER, else .harness/cluster here."""
    chosen = given or os.environ.get(ENVIRONMENT_NAME) or str(_DEFAULT)
    return ClusterFolder(Path(os.path.abspath(chosen)))


def read_cookie(folder: ClusterFolder) -> str | None:
    """The cluster's id, or None when this folder is not marked as an emulated cluster."""
    try:
        content = json.loads(folder.cookie.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ClusterError(f"{folder.cookie}: unreadable ({error}); not taken for a cluster's") from error
    if not isinstance(content, dict) or content.get("emulated") is not True:
        return None
    identity = content.get("id")
    return identity if isinstance(identity, str) and identity.isalnum() else None


def claim(folder: ClusterFolder) -> str:
    """Make the folder ours and return its cluster id; refuse one that holds anything foreign."""
    root = folder.root
    if len(os.fsencode(root)) > _LONGEST_FOLDER:
        raise ClusterError(
            f"{root}: {len(os.fsencode(root))} bytes, but sockets in the folder allow {_LONGEST_FOLDER};"
            " choose a shorter --folder",
            exit_status=2,
        )
    if any(character.isspace() or character in "\"'#\\,=" for character in str(root)):
        raise ClusterError(
            f"{root}: slurm.conf cannot hold spaces, quotes, commas, '=', '#' or backslashes;"
            " choose another --folder",
            exit_status=2,
        )
    if root.exists() and not root.is_dir():
        raise ClusterError(f"{root} is not a folder; choose another --folder", exit_status=2)
    identity = read_cookie(folder)
    if identity is None:
        if root.is_dir() and any(root.iterdir()):
            raise ClusterError(
                f"{root} is not empty and has no {folder.cookie.name} of an emulated cluster;"
                " it is left alone: choose another --folder",
                exit_status=2,
            )
        root.mkdir(parents=True, exist_ok=True)
        identity = secrets.token_hex(4)
        write_atomically(folder.cookie, json.dumps({"emulated": True, "id": identity, "version": 1}) + "\n")
    root.chmod(0o755)
    return identity


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` by `text` so that a reader sees the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
    os.replace(temporary, path)
