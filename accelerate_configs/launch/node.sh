#!/bin/bash
# One node's part of a run on several nodes. Give the same command on every node, with its own NODE:
#   NODES=2 NODE=0 ADDRESS=10.0.0.1 accelerate_configs/launch/node.sh recipes/sft.py --config FILE
# NODES     how many nodes                    NODE     this one's number, 0 to NODES - 1
# ADDRESS   of node 0, as the others reach it PORT     any free port there (29500)
# PROCESSES on each node, one a GPU (8)       CONFIG   accelerate configuration (accelerate_configs/zero3_multi_node.yaml)
# A node that does not come within fieldmark.silence seconds, or falls silent later, ends the run with its name.
set -eu
: "${NODES:?how many nodes}" "${NODE:?the number of this node, from 0}" "${ADDRESS:?the address of node 0}"
PROCESSES=${PROCESSES:-8}
exec "${PYTHON:-python}" -m accelerate.commands.launch \
  --config_file "${CONFIG:-accelerate_configs/zero3_multi_node.yaml}" \
  --num_machines "$NODES" --machine_rank "$NODE" --num_processes "$((NODES * PROCESSES))" \
  --main_process_ip "$ADDRESS" --main_process_port "${PORT:-29500}" "$@"
