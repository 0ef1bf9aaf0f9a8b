#!/bin/bash
# One sbatch for an array, then squeue once a second until none is left, then sacct until all are known.
# Usage: sbatch_array.sh CASES; works in the current folder, writes known.txt ("ended well, of").
set -euo pipefail
cases=$1
id=$(sbatch --parsable --time=5 --ntasks=1 --output=case-%A_%a.out --array=0-$((cases - 1)) --wrap 'echo ended')
while [ -n "$(squeue -h -j "$id" -o %i 2>/dev/null)" ]; do sleep 1; done
ended=0
while [ "$ended" -lt "$cases" ]; do
    rows=$(sacct -n -P -X -j "$id" -o State,ExitCode)
    ended=$(grep -cvE '^(PENDING|RUNNING|COMPLETING|REQUEUED)' <<<"$rows" || true)
    [ "$ended" -ge "$cases" ] || sleep 1
done
echo "$(grep -c '^COMPLETED|0:0$' <<<"$rows") $cases" >known.txt
