#!/usr/bin/env bash
# Trains, passes SIGTERM on, and tells by its status whether to start it again. The other launchers use it.
#
#   launch/supervised.sh CONFIG WORKDIR [options of `cwjax train`]
#
# Status: 75 if a signal stopped the run after it was saved, otherwise that of training.
set -u
if [[ $# -lt 2 ]]; then
    echo "usage: $0 CONFIG WORKDIR [options of cwjax train]" >&2
    exit 2
fi
config=$1
workdir=$2
shift 2
python "$(dirname "$0")/train.py" --config "$config" --workdir "$workdir" "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM INT
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do # a signal ends `wait` before training ends
    wait "$child"
    status=$?
done
if [[ $status -eq 0 && -e $workdir/stopped ]]; then
    exit 75
fi
exit "$status"
