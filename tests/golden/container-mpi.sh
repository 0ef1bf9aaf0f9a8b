#!/bin/bash
#SBATCH --job-name=hh.0123abcd.0001
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --time=7
#SBATCH --output="/shared/it's a \"run\" of $USER (100%%)/r 1/logs/0001-%j.out"
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR2@60
#SBATCH --export=ALL
#SBATCH --partition=batch

set -euo pipefail

export HARNESS_MPI_PLUGIN=pmi2
# Ranks that wait give way: MPICH, Open MPI.
export MPIR_CVAR_POLLS_BEFORE_YIELD=1000
export OMPI_MCA_mpi_yield_when_idle=1
# Each rank has a user namespace of its own, unless Apptainer is setuid, and then the kernel lets none read another's
# memory. Open MPI and UCX notice that themselves; MPICH fails. Set it to 1 in mpi.environment where it works.
export MPIR_CVAR_CH4_CMA_ENABLE=0
export LC_ALL=C.UTF-8
export OMP_NUM_THREADS=1

# Last, so that nothing above can put other code in its place.
export PYTHONPATH='/shared/it'"'"'s a "run" of $USER (100%)/r 1/harness.zip'
export PYTHONUNBUFFERED=1
cd -- '/shared/it'"'"'s a "run" of $USER (100%)/r 1'
# exec, so that signals reach the supervisor and not a shell around it.
exec '/opt/my python/bin/python3' -m harness.runtime.supervisor '/shared/it'"'"'s a "run" of $USER (100%)/r 1' 0001
