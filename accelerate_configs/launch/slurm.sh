#!/bin/bash
#SBATCH --job-name=fieldmark
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1      # one launcher a node; it starts the processes
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --signal=B:TERM@120      # two minutes before the end: save at the end of the step, and stop
#SBATCH --requeue                # the same command goes on from the last checkpoint
#SBATCH --output=runs/slurm-%j.log
# A run on several nodes, started by SLURM:
#   sbatch accelerate_configs/launch/slurm.sh recipes/sft.py --config FILE
set -eu
export NODES=$SLURM_NNODES PROCESSES=${SLURM_GPUS_ON_NODE:-8} PORT=$((20000 + SLURM_JOB_ID % 10000))
ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export ADDRESS
# Each task runs on one node and learns its number there.
srun --kill-on-bad-exit=1 bash -c 'NODE=$SLURM_NODEID exec accelerate_configs/launch/node.sh "$@"' node "$@" &
steps=$!
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' TERM
wait "$steps" || wait "$steps"
