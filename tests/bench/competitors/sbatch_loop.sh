#!/bin/bash
# A plain loop: one sbatch a case, then squeue once a second until none is left, then sacct until all are known.
# Usage: sbatch_loop.sh CASES; works in the current folder, writes known.txt ("ended well, of").
set -euo pipefail
cases=$1
ids=()
for ((i = 0; i < cases; i++)); do
    ids+=("$(sbatch --parsable --time=5 --ntasks=1 --output=case-%j.out --wrap 'echo ended')")
done
list=$(IFS=,; echo "${ids[*]}")
while [ -n "$(squeue -h --me -o %i)" ]; do sleep 1; done
ended=0
while [ "$ended" -lt "$cases" ]; do
    rows=$(sacct -n -P -X -j "$list" -o State,ExitCode)
    ended=$(grep -cvE '^(PENDING|RUNNING|COMPLETING|REQUEUED)' <<<"$rows" || true)
    [ "$ended" -ge "$cases" ] || sleep 1
done
echo "$(grep -c '^COMPLETED|0:0$' <<<"$rows") $cases" >known.txt
