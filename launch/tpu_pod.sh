#!/usr/bin/env bash
# Trains on a TPU pod slice of Google Cloud, made as a queued resource, on all its workers:
#
#   PROJECT=my-project ZONE=us-east5-b ACCELERATOR=v5litepod-64 launch/tpu_pod.sh \
#       --config configs/whisper_small_flan_t5.py --workdir /mnt/shared/runs/small --data.root /mnt/shared/corpus
#
# --workdir and the corpus must be where all workers see them: a Filestore share, or a bucket mounted with Cloud Storage
# FUSE; SETUP may hold the command that mounts it, run on every worker first.
# NAME (cwjax), RUNTIME (v2-alpha-tpuv5-lite) and REPOSITORY (where workers clone from) may be given too, SPOT=yes asks
# for preemptible machines, DRY_RUN=yes prints the commands instead of running them. A slice that was preempted is made
# again, and training goes on from its last checkpoint. The slice is deleted when training has ended.
set -euo pipefail

: "${PROJECT:?give PROJECT, the Google Cloud project}"
: "${ZONE:?give ZONE, such as us-east5-b}"
: "${ACCELERATOR:?give ACCELERATOR, such as v5litepod-64}"
NAME="${NAME:-cwjax}"
RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}"
REPOSITORY="${REPOSITORY:-$(git config --get remote.origin.url || true)}"
: "${REPOSITORY:?give REPOSITORY, an address that the workers can clone from}"
place=(--project "$PROJECT" --zone "$ZONE")

run() {
    if [[ -n "${DRY_RUN:-}" ]]; then
        printf '%q ' "$@"
        printf '\n'
    else
        "$@"
    fi
}

state() {
    if [[ -n "${DRY_RUN:-}" ]]; then
        echo ACTIVE
    else
        gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" --format 'value(state.state)' 2>/dev/null ||
            echo ABSENT
    fi
}

create() {
    local options=()
    if [[ -n "${SPOT:-}" ]]; then options+=(--spot); fi
    run gcloud compute tpus queued-resources create "$NAME" "${place[@]}" --node-id "$NAME" \
        --accelerator-type "$ACCELERATOR" --runtime-version "$RUNTIME" "${options[@]}"
}

delete() {
    run gcloud compute tpus queued-resources delete "$NAME" "${place[@]}" --force --quiet
}

on_all_workers() {
    run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker all --command "$1"
}

arguments="$(printf '%q ' "$@")"
setup="${SETUP:-true} && { test -d cwjax-run || git clone --depth 1 $(printf '%q' "$REPOSITORY") cwjax-run; }"
setup+=" && cd cwjax-run && python3 -m venv .venv && .venv/bin/pip install -q -e '.[tpu]'"
train="cd cwjax-run && .venv/bin/python launch/train.py ${arguments}--distributed auto"

while true; do
    case "$(state)" in
        ACTIVE)
            if on_all_workers "$setup" && on_all_workers "$train"; then
                delete
                exit 0
            fi
            # A slice that is still whole means that training itself failed: what it printed says why.
            if [[ "$(state)" == ACTIVE ]]; then
                echo "tpu_pod: training failed; the slice $NAME is kept for a look, delete it when done" >&2
                exit 1
            fi
            ;;
        ABSENT) create ;;
        SUSPENDED | FAILED) delete ;;
        *) sleep "${PAUSE:-30}" ;;
    esac
done
