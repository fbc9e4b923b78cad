#!/usr/bin/env bash
# Trains on all GPUs of this machine; one process drives them. A run that dies is started again and continues.
#
#   launch/multi_gpu.sh CONFIG WORKDIR [options of `cwjax train`, such as --mesh.fsdp 8 --mesh.data 1]
#
# SIGTERM saves and ends it with status 0; the same command continues.
set -u
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
restarts=${RESTARTS:-10}
trap 'kill -TERM "${child:-0}" 2>/dev/null' TERM INT
for ((attempt = 0; attempt <= restarts; attempt++)); do
    "$(dirname "$0")/supervised.sh" "$@" &
    child=$!
    wait "$child"
    status=$?
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        status=$?
    done
    case $status in
        0 | 75) exit 0 ;;
        1 | 2 | 130) exit "$status" ;; # something only a person can mend
    esac
    echo "multi_gpu.sh: training ended with status $status; starting it again ($((restarts - attempt)) more times)" >&2
    sleep "${RESTART_SECONDS:-10}"
done
exit "$status"
