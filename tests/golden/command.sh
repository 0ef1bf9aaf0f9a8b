#!/bin/bash
#SBATCH --job-name=hh.0123abcd.0000
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --time=7
#SBATCH --output="/shared/it's a \"run\" of $USER (100%%)/r 1/logs/0000-%j.out"
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR2@60
#SBATCH --export=ALL

set -euo pipefail

export LC_ALL=C.UTF-8
export OMP_NUM_THREADS=2

# The program gets its own search path back; ours is for the harness alone.
export HARNESS_OUTER_PYTHONPATH="${PYTHONPATH-}"
# Last, so that nothing above can put other code in its place.
export PYTHONPATH='/shared/it'"'"'s a "run" of $USER (100%)/r 1/harness.zip'
export PYTHONUNBUFFERED=1
cd -- '/shared/it'"'"'s a "run" of $USER (100%)/r 1'
# exec, so that signals reach the supervisor and not a shell around it.
exec '/opt/my python/bin/python3' -m harness.runtime.supervisor '/shared/it'"'"'s a "run" of $USER (100%)/r 1' 0000
