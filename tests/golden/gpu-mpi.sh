#!/bin/bash
#SBATCH --job-name=hh.0123abcd.0001
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --gpus-per-node=8
#SBATCH --time=7
#SBATCH --output="/shared/it's a \"run\" of $USER (100%%)/r 1/logs/0001-%j.out"
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR2@60
#SBATCH --export=ALL
#SBATCH --partition=gpu
#SBATCH --account=my-project

set -euo pipefail

export HARNESS_MPI_PLUGIN=pmix
export LC_ALL=C.UTF-8
export OMP_NUM_THREADS=1
export NCCL_DEBUG=WARN
export NCCL_IB_HCA=mlx5
export OMPI_MCA_pml=ucx

# The site's own lines: code. Modules often read variables that are not set.
prologue_failed() { echo "prologue of the site file: line $1 failed" >&2; exit 1; }
set +u
{
source /etc/profile
} || prologue_failed 1
{
module load cuda/12.8
} || prologue_failed 2
set -u

# Last, so that nothing above can put other code in its place.
export PYTHONPATH='/shared/it'"'"'s a "run" of $USER (100%)/r 1/harness.zip'
export PYTHONUNBUFFERED=1
cd -- '/shared/it'"'"'s a "run" of $USER (100%)/r 1'
# exec, so that signals reach the supervisor and not a shell around it.
exec '/opt/my python/bin/python3' -m harness.runtime.supervisor '/shared/it'"'"'s a "run" of $USER (100%)/r 1' 0001
