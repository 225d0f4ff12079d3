#!/bin/bash
# The same with torch's own launcher, for plain data parallelism (DDP) without an accelerate configuration:
#   NODES=2 NODE=0 ADDRESS=10.0.0.1 accelerate_configs/launch/torchrun.sh recipes/sft.py --config FILE
# Variables as in node.sh.
set -eu
: "${NODES:?how many nodes}" "${NODE:?the number of this node, from 0}" "${ADDRESS:?the address of node 0}"
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "${PROCESSES:-8}" \
  --master_addr "$ADDRESS" --master_port "${PORT:-29500}" "$@"
