#!/usr/bin/env bash
# Trains on all GPUs of one machine, and goes on after a preemption.
#
#   launch/multi_gpu.sh --config configs/whisper_small_flan_t5.py [--workdir DIR] [options of cwjax train]
#
# One process drives all GPUs of a machine. For several machines, NODES, NODE and COORDINATOR: the same command on every
# machine with its own NODE (0 to NODES - 1):
#
#   NODES=2 NODE=0 COORDINATOR=10.0.0.1:1234 launch/multi_gpu.sh --config ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

distributed=()
if [[ "${NODES:-1}" -gt 1 ]]; then
    : "${NODE:?give NODE, the number of this machine, from 0 to NODES - 1}"
    : "${COORDINATOR:?give COORDINATOR, HOST:PORT of machine 0}"
    distributed=(--distributed "${COORDINATOR},${NODES},${NODE}")
fi

exec launch/keep_training.sh "$@" "${distributed[@]}"
