"""``harness cluster``: a real Slurm cluster on this machine, for tests that break things.

Only argparse and the choice of folder are loaded here; each verb loads what it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys

from harness.devcluster.errors import INTERRUPTED, ClusterError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verbs to the parser of ``harness cluster``."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--folder",
        metavar="DIR",
        help="the cluster's folder (default: $HARNESS_CLUSTER, else .harness/cluster)",
    )
    verbs = parser.add_subparsers(dest="cluster_verb", required=True, metavar="VERB")

    up = verbs.add_parser("up", parents=[common], help="bring a cluster up")
    up.add_argument("--nodes", type=int, required=True, metavar="N", help="how many nodes: p1 to pN")
    up.add_argument("--cpus", type=int, default=4, metavar="C", help="CPUs that each node claims (default 4)")
    up.add_argument(
        "--gres", default="", metavar="NAME:COUNT", help="imitated devices of each node, such as gpu:2"
    )
    up.add_argument(
        "--share", action="append", default=[], metavar="PATH",
        help="a folder to show inside at its own path, readable by the ordinary user (may be repeated)",
    )  # fmt: skip
    up.add_argument(
        "--no-accounting",
        action="store_true",
        help="neither MariaDB nor slurmdbd: `sacct` fails, as on some sites",
    )
    up.add_argument(
        "--conf", action="append", default=[], metavar="KEY=VALUE",
        help="a line of slurm.conf, in place of ours with that key or added, such as MaxArraySize=101"
        " or 'PartitionName=low Nodes=ALL PriorityTier=1' (may be repeated)",
    )  # fmt: skip
    up.add_argument(
        "--reuse", action="store_true", help="be content with the same cluster if it is up already"
    )

    down = verbs.add_parser("down", parents=[common], help="take it down and leave nothing behind")
    down.add_argument("--keep-logs", action="store_true", help="keep logs/ and power.jsonl")
    down.add_argument("--purge", action="store_true", help="remove shared/ and home/ even if they hold files")

    status = verbs.add_parser("status", parents=[common], help="what is up, and how it is")
    status.add_argument("--json", action="store_true", help="for programs")

    verbs.add_parser("env", parents=[common], help='shell lines: eval "$(harness cluster env)"')

    power = verbs.add_parser("power", parents=[common], help="switch nodes off and on, as a BMC would")
    power.add_argument("action", choices=("off", "on", "status"))
    power.add_argument("power_nodes", nargs="+", metavar="NODE")
    power.add_argument("--json", action="store_true", help="one JSON line a node, with the time stamps")

    _add_fault_verbs(verbs, common)

    execute = verbs.add_parser("exec", parents=[common], help="run a command on a node, on login, or on head")
    execute.add_argument("where", metavar="NODE|login|head")
    execute.add_argument("--root", action="store_true", help="as root instead of the ordinary user")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD", help="the command")


def _add_fault_verbs(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    fault = verbs.add_parser(
        "fault", parents=[common], help="break something for some seconds; it ends by itself",
        epilog="kinds: slurmd-stop, link-down, drain, fail, preempt, storage-away (of --node);"
        " partition (--node from everyone, or --halves, or --from and --to); controller-freeze, controller-kill",
    )  # fmt: skip
    fault.add_argument("kind", metavar="KIND", help="what to do; see below")
    fault.add_argument(
        "--for", dest="for_s", type=float, metavar="SECONDS", help="when it ends at the latest: at most 600"
    )
    fault.add_argument(
        "--node", nargs="+", action="extend", default=[], metavar="NODE", help="p2, or p2,p4, or p[1-3]"
    )
    fault.add_argument("--from", dest="from_", default="", metavar="NODES", help="partition: one side")
    fault.add_argument(
        "--to", default="", metavar="NODES", help="partition: the other side (`head` is slurmctld's host)"
    )
    fault.add_argument(
        "--halves", action="store_true", help="partition: one half of the nodes from the other"
    )
    fault.add_argument(
        "--one-way", action="store_true", help="partition: only what --from (or --node) sends is lost"
    )
    fault.add_argument("--id", help="a name for it; the same again is the same fault")

    heal = verbs.add_parser("heal", parents=[common], help="end a fault now; may be called again")
    heal.add_argument("id", nargs="?", metavar="ID")
    heal.add_argument("--all", action="store_true", help="every fault")

    verbs.add_parser("faults", parents=[common], help="every fault so far and what became of it, as JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb; errors are one message on standard error and an exit status."""
    try:
        return _run(args)
    except ClusterError as error:
        print(f"harness cluster {args.cluster_verb}: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        # Whoever read our output has enough of it, as in `status | head`; not even the flush may fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"harness cluster {args.cluster_verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"harness cluster {args.cluster_verb}: stopped", file=sys.stderr)
        return INTERRUPTED


def _say(line: str) -> None:
    print(line, flush=True)


def _run(args: argparse.Namespace) -> int:
    from harness.devcluster.folder import choose

    folder = choose(args.folder)
    verb: str = args.cluster_verb
    if verb == "power":
        return _power(args)
    if verb in ("fault", "heal", "faults"):
        return _faults(args)
    if verb == "up":
        from harness.devcluster.up import Wanted, up

        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler)  # as Ctrl-C: leave nothing behind
        if not 1 <= args.cpus <= 1024:
            raise ClusterError(f"--cpus {args.cpus}: 1 to 1024 are possible", exit_status=2)
        wanted = Wanted(
            nodes=args.nodes,
            cpus=args.cpus,
            gres=args.gres,
            shares=tuple(args.share),
            reuse=args.reuse,
            accounting=not args.no_accounting,
            settings=tuple(args.conf),
        )
        up(folder, wanted, _say)
    elif verb == "down":
        from harness.devcluster.teardown import down

        if os.geteuid() != 0:
            raise ClusterError("`down` needs root, as `up` did", exit_status=3)
        down(folder, keep_logs=args.keep_logs, purge=args.purge, say=_say)
    elif verb == "exec":
        from harness.devcluster.enter import run

        as_root, command = _split(args.root, args.command)
        return run(folder, args.where, command, as_root=as_root)
    else:
        from harness.devcluster import status

        if verb == "env":
            print(status.environment_lines(folder), end="")
        else:
            gathered = status.gather(folder)
            print(status.as_json(gathered) if args.json else status.as_text(gathered))
    return 0


def _split(as_root: bool, words: list[str]) -> tuple[bool, list[str]]:
    """Options may also stand between the node and `--`, where argparse no longer looks for them."""
    if words[:1] == ["--root"]:
        as_root, words = True, words[1:]
    return as_root, words[1:] if words[:1] == ["--"] else words


def _power(args: argparse.Namespace) -> int:
    from harness.devcluster.folder import choose
    from harness.devcluster.power import power

    for entry in power(choose(args.folder), args.action, args.power_nodes):
        if args.json:
            print(json.dumps(entry))
        elif args.action == "status":
            print(entry["power"] if len(args.power_nodes) == 1 else f"{entry['power']} {entry['node']}")
        else:
            # The state is always the first word: that is what a site's power command promises.
            print(f"{entry['power']} {entry['node']}" + ("" if entry["changed"] else " (it was already)"))
    return 0


def _faults(args: argparse.Namespace) -> int:
    from harness.devcluster import faults
    from harness.devcluster.folder import choose
    from harness.devcluster.leases import check_duration

    folder = choose(args.folder)
    if args.cluster_verb == "faults":
        print(json.dumps({"faults": faults.listed(folder)}))
    elif args.cluster_verb == "heal":
        if (args.id is None) != args.all:
            raise ClusterError("heal: give the id of a fault, or --all", exit_status=2)
        print(json.dumps({"faults": faults.heal(folder, args.id)}))
    else:
        wanted = {
            "kind": args.kind,
            "for_s": check_duration(args.for_s),
            "nodes": args.node,
            "from": [args.from_] if args.from_ else [],
            "to": [args.to] if args.to else [],
            "halves": args.halves,
            "one_way": args.one_way,
            "id": args.id,
        }
        print(json.dumps(faults.inject(folder, wanted)))
    return 0
