"""Process 1 of the head: munge, MariaDB, slurmdbd and slurmctld, in namespaces of their own.

One SIGKILL for this process ends all four, and none of them can meet another on this machine: ports,
sockets and process ids are private. The first two start together, since neither needs the other. A
cluster without accounting has munge and slurmctld only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from harness.devcluster import config, linux, network, node
from harness.devcluster.errors import ClusterError
from harness.devcluster.state import Cluster, Host
from harness.devcluster.waiting import wait_until

_SQL_FOLDER = Path("/usr/share/mysql")
_DATABASE_SOCKET = "/run/mysqld/mysqld.sock"
# The database lives as long as the cluster: small files, and no waiting for the disk.
_DATABASE_OPTIONS = (
    "--no-defaults",
    "--user=root",
    "--innodb-log-file-size=8M",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-autoextend-increment=4",
    "--innodb-temp-data-file-path=ibtmp1:4M:autoextend",
    "--aria-log-file-size=8M",
    "--performance-schema=OFF",
    "--log-warnings=0",
)
_START_S = 60.0


def run_services(cluster: Cluster, host: Host, channel: node.Channel) -> None:
    """Start everything in order, telling the daemon of each phase; then bury orphans."""
    node.await_line(channel, node.START)
    _Services(cluster, channel).start()
    channel.send(node.STARTED)
    channel.close()
    node.bury_orphans(cluster, host)


class _Services:
    """The head's daemons while they start; any that ends early ends the start, with its log's name."""

    def __init__(self, cluster: Cluster, channel: node.Channel) -> None:
        self.cluster = cluster
        self.channel = channel
        self.paths = cluster.paths
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        address = IPv4Address(self.cluster.head.address)
        network.acknowledge_at_once(network.INTERFACE, address, self.cluster.prefix_length, own=True)
        begin = time.monotonic()
        bootstrap = self._bootstrap_database() if self.cluster.accounting else None
        self._spawn(
            "munged",
            f"--key-file={self.paths.munge_key}",
            f"--socket={self.paths.munge_socket}",
            "--pid-file=/run/slurm/munged.pid",
            "--seed-file=/run/slurm/munged.seed",
            f"--log-file={self.paths.log('munged')}",
            "--num-threads=4",
            "--foreground",
            "--force",
        )
        self._phase("munge", begin, lambda: self.paths.munge_socket.exists())
        if bootstrap is not None:
            self._start_accounting(bootstrap, begin)
        begin = time.monotonic()
        self._spawn("slurmctld", "-D")
        self._phase("slurmctld", begin, lambda: _listening(config.CONTROLLER_PORT))

    def _start_accounting(self, bootstrap: subprocess.Popen[bytes], begin: float) -> None:
        self._finish_bootstrap(bootstrap)
        self._spawn(
            "mariadbd",
            *_DATABASE_OPTIONS,
            f"--datadir={self.paths.database}",
            f"--socket={_DATABASE_SOCKET}",
            "--pid-file=/run/mysqld/mysqld.pid",
            "--skip-networking",
            "--skip-name-resolve",
            # Only this head's root reaches the socket, which is in its private /run.
            "--skip-grant-tables",
            "--innodb-lock-wait-timeout=900",
            "--max-allowed-packet=16M",
        )
        self._phase("mariadb", begin, lambda: os.path.exists(_DATABASE_SOCKET))
        begin = time.monotonic()
        self._spawn("slurmdbd", "-D")
        self._phase("slurmdbd", begin, lambda: _listening(config.ACCOUNTING_PORT))
        user = self.cluster.user
        # Before the controller starts: it would otherwise hear of a user before his account.
        self._sacctmgr(
            f"add cluster {config.CLUSTER_NAME}",
            f"add account {user.account} Description=emulated Organization=emulated",
            f"add user {user.name} Account={user.account} DefaultAccount={user.account}",
        )

    def _phase(self, name: str, begin: float, answers: Callable[[], bool]) -> None:
        def ready() -> bool:
            self._check_alive()
            return answers()

        wait_until(ready, deadline_s=_START_S, what=f"{name} answers (its log is {self.paths.log(name)})")
        self.channel.send(f"{node.PHASE}{name} {time.monotonic() - begin:.2f}")

    def _spawn(self, *command: str) -> None:
        self.running[command[0]] = node.spawn(self.cluster, list(command), command[0])

    def _check_alive(self) -> None:
        for name, process in self.running.items():
            status = process.poll()
            if status is not None:
                raise ClusterError(f"{name} ended with {status}; its log is {self.paths.log(name)}")

    def _bootstrap_database(self) -> subprocess.Popen[bytes]:
        """Make the system tables as mariadb-install-db does, less its help texts: half the time."""
        os.mkdir("/run/mysqld")
        # In memory: it lives as long as the head, and the speed of a disk has no place in a test.
        linux.mount(self.cluster.marker, str(self.paths.database), "tmpfs", linux.MS_NOSUID, "mode=0700")
        sql = "create database if not exists mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n"
        for name in ("mysql_system_tables.sql", "mysql_system_tables_data.sql"):
            sql += (_SQL_FOLDER / name).read_text()
        script = self.paths.run / "bootstrap.sql"
        script.write_text(f"{sql}\ncreate database {config.DATABASE};\n")
        with open(script, "rb") as stream, open(self.paths.logs / "mariadbd.out", "ab") as log:
            return subprocess.Popen(
                ["mariadbd", *_DATABASE_OPTIONS, f"--datadir={self.paths.database}", "--bootstrap"],
                stdin=stream,
                stdout=log,
                stderr=log,
                env=node.daemon_environment(self.cluster),
            )

    def _finish_bootstrap(self, process: subprocess.Popen[bytes]) -> None:
        try:
            status = process.wait(_START_S)
        except subprocess.TimeoutExpired:
            status = -signal.SIGALRM
        if status != 0:
            raise ClusterError(
                f"mariadbd --bootstrap ended with {status}; its log is {self.paths.logs}/mariadbd.out"
            )

    def _sacctmgr(self, *commands: str) -> None:
        for command in commands:
            result = subprocess.run(
                ["sacctmgr", "--immediate", *command.split()],
                capture_output=True,
                text=True,
                check=False,
                timeout=_START_S,
                env=node.daemon_environment(self.cluster),
            )
            if result.returncode != 0:
                raise ClusterError(f"sacctmgr {command}: {(result.stdout + result.stderr).strip()}")


def _listening(port: int) -> bool:
    """Whether anything listens there; looked up, because a probe would be an error in Slurm's log."""
    with open("/proc/self/net/tcp") as table:
        return any(
            fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in map(str.split, table)
        )
