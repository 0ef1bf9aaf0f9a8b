#!/usr/bin/env bash
# Makes a machine ready for `make demo` and `make test`: Debian packages, then the environment .venv.
#
# Needs bash and a Debian base, nothing of ours. Says what it will install and where before it does,
# installs only what is missing, and is done in a moment when nothing is. It starts no daemon, enables
# none, removes no package, and installs nothing system-wide on a machine that belongs to a Slurm site.
#
# Exit codes: 0 ready, 1 an installation failed, 2 wrong use, 3 refused (and what to do instead).
# Tests source this file and point the variables in capitals elsewhere; the environment cannot.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
ETC=/etc
PROC=/proc
POLICY=/usr/sbin/policy-rc.d
DEV=/dev
VENV=$ROOT/.venv
LOG=$ROOT/.harness/setup.log

# Where a site's slurm.conf is found besides under /etc.
SITE_CONFIGS=(/run/slurm/conf/slurm.conf /usr/local/etc/slurm.conf /opt/slurm/etc/slurm.conf)

# What the emulated cluster runs.
CLUSTER_PACKAGES=(
    slurmctld            # the controller
    slurmd               # one for each node
    slurmdbd             # accounting: sacct, and jobs that outlive the controller's memory
    slurm-client         # sbatch, srun, squeue, scontrol, sacctmgr
    munge                # credentials between them
    mariadb-server-core  # the database behind slurmdbd: the program alone, no service and no data
    iproute2             # a network for each node
    nftables             # partitions between nodes
    libpmix-dev          # libpmix.so, which Slurm's pmix plug-in opens by this name
)
# What only the tests need.
TEST_PACKAGES=(
    chromium             # opens the report
    hdf5-tools           # h5dump, whose commands analysis/SCHEMA.md shows
    libopenmpi3          # the MPI library that sites have, under Slurm's pmix
    hpcc                 # the MPI program of configs/campaigns/command.yaml; 0.5 MB
)

# Units that these packages bring, and would start at the next boot.
UNITS=(munge slurmctld slurmd slurmdbd nftables)

# Torch without CUDA is a tenth of the size; PyPI's build for Linux brings CUDA along.
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

POLICY_MARK="written by the set-up of hpc-harness while it installs packages; it goes when that ends"

is_root() { [[ $EUID == 0 ]]; }
say() { printf '%s\n' "$*"; }
complain() { printf '%s\n' "$*" >&2; }

usage() {
    say "usage: setup.sh [--cluster] [--dev] [--yes]"
    say "  (nothing)   build the Python environment .venv; needs no root"
    say "  --cluster   also the Debian packages of the emulated Slurm cluster; needs root"
    say "  --dev       with --cluster: also what only the tests need (a browser, Open MPI)"
    say "  --yes       do not ask, even in a terminal"
    say "PYTHON=/path/to/python3 chooses the interpreter of .venv (3.10 or newer)."
}

# ---------------------------------------------------------------------------------------------
# Does this machine belong to a Slurm site?

# Prints why this machine belongs to a site; prints nothing when it does not.
site_evidence() {
    local file
    for file in "$ETC"/slurm*/slurm.conf "$ETC"/slurm.conf "${SITE_CONFIGS[@]}" "${SLURM_CONF:-}"; do
        if [[ -n $file && -e $file ]] && ! in_our_cluster "$file"; then
            say "$file exists"
        fi
    done
    foreign_daemons
}

# Prints each Slurm or munge daemon that runs here and is not part of a cluster of ours.
foreign_daemons() {
    local dir comm pid
    for dir in "$PROC"/[0-9]*; do
        comm=
        { read -r comm <"$dir/comm"; } 2>/dev/null || continue
        case $comm in slurmd | slurmctld | slurmdbd | munged | sackd) ;; *) continue ;; esac
        pid=${dir##*/}
        our_daemon "$dir" || say "$comm is running (process $pid)"
    done
}

# A daemon does not count when it has ended, or when it is ours: in a process namespace of its own, as
# our nodes are, or with arguments or an environment that point into a folder with the cookie of an
# emulated cluster.
our_daemon() {
    local dir=$1 line numbers word
    while read -r line; do
        case $line in
            State:*Z*) return 0 ;;  # it has ended, and only waits to be reaped
            NSpid:*)
                read -r -a numbers <<<"${line#NSpid:}"  # its number here, and in each inner namespace
                ((${#numbers[@]} < 2)) || return 0
                ;;
        esac
    done < <(cat "$dir/status" 2>/dev/null)
    while IFS= read -r -d '' word; do
        if [[ $word == */* ]] && in_our_cluster "/${word#*/}"; then
            return 0
        fi
    done < <(
        cat "$dir/cmdline" 2>/dev/null
        grep -z -s -E '^(SLURM_CONF|HARNESS_CLUSTER)=' "$dir/environ"
    )
    [[ ! -e $dir/status ]]  # it ended while we looked
}

# Is this path inside the folder of an emulated cluster?
in_our_cluster() {
    local path=$1
    while [[ $path == /?* ]]; do
        if [[ -e $path/cookie.json ]]; then
            return 0
        fi
        path=${path%/*}
    done
    return 1
}

refuse_site() {
    complain "This machine belongs to a Slurm site:"
    complain "  - ${1//$'\n'/$'\n'  - }"
    complain "Nothing was installed: an emulated cluster must not meet a real one."
    complain "What to do instead:"
    complain "  - run campaigns on this site: copy configs/sites/example-gpu.yaml to yours.yaml, fill it in, then"
    complain "      make setup"
    complain "      .venv/bin/harness run configs/campaigns/quickstart.yaml --site yours.yaml"
    complain "  - try the harness here without Slurm:  SITE=local make demo"
    complain "  - run the tests that need no cluster:  make check"
    complain "  - or run \`make demo\` on a machine of your own; a virtual machine will do"
    exit 3
}

refuse_user() {
    complain "The emulated cluster needs root: it starts Slurm's daemons, and a network for each node."
    complain "Choose one of the two:"
    complain "  - as root, on a machine of your own:                make demo"
    complain "  - as you are, plain processes instead of Slurm:     SITE=local make demo"
    exit 3
}

# ---------------------------------------------------------------------------------------------
# Debian packages, without starting what they bring

# Prints those of the given packages that are not installed.
missing_packages() {
    local name status installed=" "
    while read -r name status; do
        [[ $status == installed ]] && installed+="$name "
    done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
    for name in "$@"; do
        [[ $installed == *" $name "* ]] || say "$name"
    done
}

# One set-up of ours at a time changes the machine, whichever checkout it is in.
lock_packages() {
    exec 8<"${POLICY%/*}"
    flock -n 8 || { say "Another set-up is installing packages; waiting for it."; flock 8; }
}

policy_is_ours() { [[ -f $POLICY && ! -L $POLICY ]] && grep -qF "$POLICY_MARK" "$POLICY"; }

# Daemons of packages that are installed from now on are not started. What was there is moved aside
# whole, so that its content, mode, owner and dates come back unchanged.
hold_daemons() {
    release_daemons
    trap release_daemons EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [[ -e $POLICY || -L $POLICY ]]; then
        mv -T -- "$POLICY" "$POLICY.before-hpc-harness"
    fi
    printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

# Puts back what was there before, also what a set-up that was killed had left aside.
release_daemons() {
    local kept=$POLICY.before-hpc-harness
    if policy_is_ours; then
        rm -f -- "$POLICY"
    fi
    if [[ -e $kept || -L $kept ]]; then
        if [[ -e $POLICY || -L $POLICY ]]; then
            complain "Both $POLICY and $kept exist, and neither is ours to judge; keep the right one, then run again."
            exit 1
        fi
        mv -T -- "$kept" "$POLICY"
    fi
}

run_apt() {
    DEBIAN_FRONTEND=noninteractive APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8 \
        apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        "$@" </dev/null >>"$LOG" 2>&1 8<&- 9<&-
}

has_unit() { [[ -e $ETC/systemd/system/$1.service || -e /lib/systemd/system/$1.service ]]; }

keep_from_next_boot() {
    if ! command -v systemctl >/dev/null; then
        # No systemd yet, but the links that would start the unit once there is one.
        rm -f -- "$ETC"/systemd/system/*.wants/"$1.service"
    elif ! systemctl --quiet disable "$1.service" >>"$LOG" 2>&1; then
        complain "Could not disable $1.service, which may start at the next boot: systemctl disable $1"
    fi
}

install_packages() {
    local unit new_units=()
    lock_packages
    for unit in "${UNITS[@]}"; do
        has_unit "$unit" || new_units+=("$unit")
    done
    hold_daemons
    if compgen -G '/var/lib/dpkg/updates/[0-9]*' >/dev/null; then
        say "An earlier installation was interrupted; finishing it."
        DEBIAN_FRONTEND=noninteractive dpkg --configure -a </dev/null >>"$LOG" 2>&1 || fail_log "dpkg --configure -a"
    fi
    say "Installing Debian packages (one to three minutes) ..."
    run_apt update || fail_log "apt-get update"
    run_apt install --no-install-recommends --no-remove "$@" || fail_log "apt-get install"
    release_daemons
    trap - EXIT HUP INT TERM
    for unit in "${new_units[@]}"; do
        if has_unit "$unit"; then
            keep_from_next_boot "$unit"
        fi
    done
    exec 8<&-
}

fail_log() {
    complain "\`$1\` failed. The end of $LOG:"
    tail -n 25 -- "$LOG" | sed 's/^/    /' >&2
    complain "Nothing is half done that a second run would not finish; repeat the command when the cause is gone."
    exit 1
}

# ---------------------------------------------------------------------------------------------
# The Python environment

# Prints a Python that can build an environment; fails when there is none. One that was asked for with
# PYTHON is taken, or none is.
find_python() {
    local name path names=(python3 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3)
    [[ -z ${PYTHON:-} ]] || names=("$PYTHON")
    for name in "${names[@]}"; do
        path=$(command -v -- "$name") || continue
        if "$path" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            say "$path"
            return 0
        fi
    done
    return 1
}

# The state that an environment must have been built from: files, and the place of the checkout.
venv_stamp() {
    local sum
    sum=$(cat -- "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | sha256sum)
    say "${sum%% *}"
    say "$ROOT"
}

venv_is_ready() {
    local had
    [[ -x $VENV/bin/python && -f $VENV/.hpc-harness-setup ]] || return 1
    had=$(<"$VENV/.hpc-harness-setup")
    [[ $had == "$(venv_stamp)" ]] || return 1
    [[ -z ${PYTHON:-} || $(readlink -f -- "$VENV/bin/python") == "$(readlink -f -- "$(command -v -- "$PYTHON")")" ]]
}

# Torch for a machine that shows no GPU is taken from torch's own index of small builds.
wants_cpu_torch() {
    [[ $(uname -sm) == "Linux x86_64" ]] || return 1
    [[ ! -e $DEV/nvidiactl && ! -e $DEV/kfd ]] || return 1
    ! compgen -G "$VENV/lib/python3*/site-packages/torch" >/dev/null
}

run_pip() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1 \
        "$VENV/bin/python" -m pip "$@" </dev/null >>"$LOG" 2>&1 9<&-
}

build_venv() {
    local python=$1 base='' torch
    base=$(readlink -f -- "$VENV/bin/python") || base=
    if [[ ! -x $VENV/bin/python ]] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1 ||
        [[ $(sed -n 2p "$VENV/.hpc-harness-setup" 2>/dev/null || say "$ROOT") != "$ROOT" ]] ||
        [[ -n ${PYTHON:-} && $base != "$(readlink -f -- "$python")" ]]; then
        if [[ -L $VENV ]]; then # --clear would empty what it points to: somebody else's environment
            complain "$VENV is a link to $(readlink -- "$VENV"), and another environment is needed here; remove the link."
            exit 1
        fi
        say "Building $VENV with $python ..."
        "$python" -m venv --clear "$VENV" >>"$LOG" 2>&1 || fail_log "$python -m venv"
    fi
    rm -f -- "$VENV/.hpc-harness-setup"
    if wants_cpu_torch; then
        torch=$(grep -E '^torch==' "$ROOT/constraints.txt")
        say "Fetching $torch, the build without CUDA ..."
        run_pip install -q --retries 1 --timeout 15 --no-deps --index-url "$TORCH_CPU_INDEX" "$torch" ||
            say "  $TORCH_CPU_INDEX has no answer; taking the build of your usual index, which may be large."
    fi
    say "Installing Python packages (one to five minutes) ..."
    # The build back end first, so that it is the pinned one too, and is fetched once.
    run_pip install -q -c "$ROOT/constraints.txt" hatchling || fail_log "pip install hatchling"
    run_pip install -q -c "$ROOT/constraints.txt" --no-build-isolation -e "${ROOT}[all,dev]" || fail_log "pip install"
    venv_stamp >"$VENV/.hpc-harness-setup.new"
    mv -- "$VENV/.hpc-harness-setup.new" "$VENV/.hpc-harness-setup"
}

refuse_python() {
    if [[ -n ${PYTHON:-} ]]; then
        complain "PYTHON=$PYTHON cannot build an environment: it must exist, be 3.10 or newer, and have venv and ensurepip."
    else
        complain "No Python 3.10 or newer with venv and ensurepip was found."
        complain "  On Debian and Ubuntu, as root:  apt-get install python3 python3-venv"
        complain "  Or name another one:            PYTHON=/path/to/python3 make setup"
    fi
    exit "$1"
}

# ---------------------------------------------------------------------------------------------

main() {
    local cluster=no dev=no yes=no site python='' venv=no wanted=() missing=() answer
    while (($#)); do
        case $1 in
            --cluster) cluster=yes ;;
            --dev) dev=yes ;;
            --yes) yes=yes ;;
            -h | --help) usage; exit 0 ;;
            *) complain "setup.sh does not know \`$1\`."; usage >&2; exit 2 ;;
        esac
        shift
    done
    unset PYTHONHOME PYTHONPATH

    # One set-up at a time in a checkout: two that fill one .venv would spoil it.
    exec 9<"$ROOT/pyproject.toml"
    flock -n 9 || { say "Another set-up is at work in $ROOT; waiting for it."; flock 9; }

    # Left by a set-up that was killed; a live one holds the lock.
    if is_root && { policy_is_ours || [[ -e $POLICY.before-hpc-harness ]]; }; then
        lock_packages
        release_daemons
        exec 8<&-
    fi

    if [[ $cluster == yes ]]; then
        site=$(site_evidence)
        [[ -z $site ]] || refuse_site "$site"
        is_root || refuse_user
        if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
            complain "The emulated cluster is built from Debian's packages, and this machine has no apt-get."
            complain "Use Debian 12, or a container of it; or try without Slurm:  SITE=local make demo"
            exit 3
        fi
        wanted+=("${CLUSTER_PACKAGES[@]}")
        [[ $dev == no ]] || wanted+=("${TEST_PACKAGES[@]}")
    fi

    if ! venv_is_ready; then
        venv=yes
        if ! python=$(find_python); then
            # Root may add Debian's own; on a site's machine that is the administrators' decision.
            if [[ -n ${PYTHON:-} || -n $(site_evidence) ]] || ! is_root || ! command -v apt-get >/dev/null; then
                refuse_python 3
            fi
            wanted+=(python3 python3-venv)
        fi
    fi
    if ((${#wanted[@]})); then
        mapfile -t missing < <(missing_packages "${wanted[@]}")
    fi

    if ((${#missing[@]} == 0)) && [[ $venv == no ]]; then
        say "Set-up: nothing to install."
        return 0
    fi

    say "This set-up will"
    if ((${#missing[@]})); then
        say "  - install Debian packages, system-wide, with apt-get, and what they depend on:"
        fold -s -w 92 <<<"${missing[*]}" | sed 's/^/        /; s/ *$//'
        say "    Their daemons are neither started now nor enabled for the next boot."
    fi
    if [[ $venv == yes ]]; then
        say "  - build the Python environment $VENV, or bring it up to date"
        say "    (${python:-/usr/bin/python3}; hpc-harness[all,dev] at the versions in constraints.txt; about 1.5 GB)"
    fi
    say "The log is $LOG"
    if [[ $yes == no && -t 0 && -t 1 ]]; then
        read -r -p "Go on? [Y/n] " answer
        [[ $answer =~ ^([Yy].*)?$ ]] || { say "Nothing was installed."; exit 3; }
    fi

    mkdir -p -- "${LOG%/*}"
    : >"$LOG"
    if ((${#missing[@]})); then
        install_packages "${missing[@]}"
    fi
    if [[ $venv == yes ]]; then
        [[ -n $python ]] || python=$(find_python) || refuse_python 1
        build_venv "$python"
    fi
    say "Set-up: complete after $SECONDS s."
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
