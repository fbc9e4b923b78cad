#!/usr/bin/env bash
# Runs `launch/train.py` with the arguments given, and again as long as a failure may pass: a process that died, a
# machine that came back. Training continues from its last checkpoint. A signal to stop is passed on, and ends this too.
#
# TRIES: how often it may fail in a row without a new checkpoint (3); exit status 1 and 2 name a cause that the user
# must mend, and are never tried again unless other processes take part, whose death looks the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

config="" workdir="" distributed="" previous=""
for argument in "$@"; do
    option="$argument"
    if [[ "$option" != --*=* ]]; then option="$previous=$argument"; fi
    case "$option" in
        --config=*) config="${option#*=}" ;;
        --workdir=*) workdir="${option#*=}" ;;
        --distributed=*) distributed="${option#*=}" ;;
    esac
    previous="$argument"
done
config="${config##*/}"
workdir="${workdir:-runs/${config%.py}}"

last_checkpoint() {
    local last=0 folder step
    for folder in "$workdir"/checkpoints/*; do
        step="${folder##*/}"
        if [[ "$step" =~ ^[0-9]+$ ]] && ((10#$step > last)); then last=$((10#$step)); fi
    done
    echo "$last"
}

child=""
stopping=""
pass_on() {
    stopping=yes
    if [[ -n "$child" ]]; then kill -TERM "$child" 2>/dev/null || true; fi
}
trap pass_on TERM INT

failures=0
while true; do
    before="$(last_checkpoint)"
    "${PYTHON:-python}" launch/train.py "$@" &
    child=$!
    status=0
    wait "$child" || status=$?
    # A signal ends `wait` early: the child is still saving.
    while kill -0 "$child" 2>/dev/null; do
        status=0
        wait "$child" || status=$?
    done
    child=""
    if [[ $status -eq 0 || -n "$stopping" ]]; then exit "$status"; fi
    if [[ -z "$distributed" && $status -le 2 ]]; then exit "$status"; fi
    if [[ "$(last_checkpoint)" != "$before" ]]; then failures=0; fi
    failures=$((failures + 1))
    if ((failures >= ${TRIES:-3})); then
        echo "keep_training: failed $failures times in a row, the last time with status $status; giving up" >&2
        exit "$status"
    fi
    echo "keep_training: status $status; starting again in ${PAUSE:-10} s" >&2
    sleep "${PAUSE:-10}"
done
