#!/bin/bash
#SBATCH --job-name=hh.0123abcd.0000
#SBATCH --nodes=4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --gpus-per-node=8
#SBATCH --time=12
#SBATCH --output="/shared/it's a \"run\" of $USER (100%%)/r 1/logs/0000-%j.out"
#SBATCH --open-mode=append
#SBATCH --no-requeue
#SBATCH --no-kill
#SBATCH --signal=B:USR2@60
#SBATCH --export=ALL
#SBATCH --partition=gpu
#SBATCH --account=my-project

set -euo pipefail

export CUBLAS_WORKSPACE_CONFIG=:4096:8
export TORCH_FR_BUFFER_SIZE=2000
export GLOO_SOCKET_IFNAME=ib0
export NCCL_SOCKET_IFNAME=ib0
export LC_ALL=C.UTF-8
export OMP_NUM_THREADS=56
export NCCL_DEBUG=WARN
export NCCL_IB_HCA=mlx5

# The site's modules. A batch job's shell reads no profile, so `module` may not be known yet.
set +u
if ! type module >/dev/null 2>&1; then
    for file in "${LMOD_PKG:-/nowhere}/init/bash" "${MODULESHOME:-/nowhere}/init/bash" /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
        # shellcheck disable=SC1090
        if [ -r "$file" ]; then . "$file" || true; break; fi
    done
fi
module_failed() { echo "module $1 of the site file cannot be loaded" >&2; exit 1; }
module load cuda/12.8 || module_failed cuda/12.8
set -u

# The site's own lines: code. Modules often read variables that are not set.
prologue_failed() { echo "prologue of the site file: line $1 failed" >&2; exit 1; }
set +u
{
ulimit -l unlimited
} || prologue_failed 1
set -u

# Last, so that nothing above can put other code in its place.
export PYTHONPATH='/shared/it'"'"'s a "run" of $USER (100%)/r 1/harness.zip'
export PYTHONUNBUFFERED=1
cd -- '/shared/it'"'"'s a "run" of $USER (100%)/r 1'
# exec, so that signals reach the supervisor and not a shell around it.
exec '/opt/my python/bin/python3' -m harness.runtime.supervisor '/shared/it'"'"'s a "run" of $USER (100%)/r 1' 0000
