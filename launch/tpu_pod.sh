#!/usr/bin/env bash
# Trains on all workers of a Cloud TPU pod slice, which is asked for, set up, and asked for again after preemption.
#
#   NAME=cwjax ZONE=us-east5-b TYPE=v6e-64 BUCKET=my-bucket launch/tpu_pod.sh CONFIG [options of `cwjax train`]
#
# Needs gcloud, logged in, with a project. Runs and data lie in the bucket, which every worker mounts as `bucket`:
# CONFIG's data are found below bucket/, the run is bucket/runs/NAME. SPOT=1 takes preemptible capacity. The slice is
# deleted when training has ended; KEEP=1 leaves it.
set -u
: "${NAME:?}" "${ZONE:?}" "${TYPE:?}" "${BUCKET:?}" "${1:?usage: NAME= ZONE= TYPE= BUCKET= launch/tpu_pod.sh CONFIG}"
config=$1
shift
runtime=${RUNTIME:-v2-alpha-tpuv6e}
repository=$(cd "$(dirname "$0")/.." && pwd)

tpu() {
    gcloud compute tpus "$@" --zone "$ZONE" --quiet
}

state() {
    tpu queued-resources describe "$NAME" --format 'value(state.state)' 2>/dev/null
}

on_all_workers() {
    tpu tpu-vm ssh "$NAME" --worker all --command "$1"
}

acquire() {
    tpu queued-resources create "$NAME" --node-id "$NAME" --accelerator-type "$TYPE" --runtime-version "$runtime" \
        ${SPOT:+--spot} || return
    until [[ $(state) == ACTIVE ]]; do
        case $(state) in
            FAILED | SUSPENDED) return 1 ;;
        esac
        sleep "${POLL_SECONDS:-30}"
    done
}

release() {
    tpu queued-resources delete "$NAME" --force
}

set_up() {
    tpu tpu-vm scp --recurse "$repository" "$NAME:cwjax" --worker all &&
        on_all_workers "mkdir -p bucket && (mountpoint -q bucket || gcsfuse --implicit-dirs $BUCKET bucket) &&
            python3 -m venv venv && venv/bin/pip install --quiet -e 'cwjax[tpu]'"
}

command="PATH=\$PWD/venv/bin:\$PATH cwjax/launch/supervised.sh $(printf '%q ' "cwjax/$config" "bucket/runs/$NAME" "$@") \
--distributed auto"
while true; do
    if [[ $(state) != ACTIVE ]]; then
        [[ -z $(state) ]] || release
        if ! acquire || ! set_up; then
            echo "tpu_pod.sh: $NAME: no slice could be had; trying again" >&2
            sleep "${POLL_SECONDS:-30}"
            continue
        fi
    fi
    on_all_workers "$command"
    status=$?
    case $status in
        0 | 1 | 2) break ;; # done, or something only a person can mend
    esac
    echo "tpu_pod.sh: $NAME: training was interrupted (status $status); going on" >&2
    sleep "${POLL_SECONDS:-30}"
done
[[ -n ${KEEP:-} ]] || release
exit "$status"
