#!/usr/bin/env bash
# End what start_slurm.sh started, with all jobs, and remove its state.
set -euo pipefail

STATE=${LMSAT_SLURM_STATE:-/var/lib/lmsat-slurm}

if [ ! -e "$STATE/slurm.conf" ]; then
    echo "Slurm is not up"
    exit 0
fi
for job in $(squeue --noheader --format %A 2>/dev/null); do
    scancel "$job" || true
done

stop() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    # A number in an old file may be anybody's by now.
    [ "$(ps -o comm= -p "$pid" 2>/dev/null)" = "$2" ] || return 0
    kill "$pid"
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid"
}

for _ in $(seq 50); do
    [ -n "$(squeue --noheader 2>/dev/null)" ] || break
    sleep 0.2
done
stop "$STATE/slurmd.pid" slurmd
stop "$STATE/slurmctld.pid" slurmctld
[ ! -e "$STATE/munged" ] || stop /run/munge/munged.pid munged
rm -f /etc/slurm/slurm.conf
rm -rf "$STATE"
echo "Slurm is stopped"
