#!/usr/bin/env bash
# A real Slurm on this machine, for the tests of the executor: as root on Debian, without systemd.
# What runs already is left alone. STATE is where its own files are; stop_slurm.sh ends it.
set -euo pipefail

STATE=${LMSAT_SLURM_STATE:-/var/lib/lmsat-slurm}
HOST=$(hostname -s)

fail() {
    echo "start_slurm.sh: $1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "Slurm's daemons need root: run it as root"

if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    # Installing starts no service: policy-rc.d says so to Debian's scripts, also where there is a systemd.
    made=
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        made=1
    fi
    installed=0
    { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } >"$log" 2>&1 || installed=$?
    [ -z "$made" ] || rm -f /usr/sbin/policy-rc.d
    [ "$installed" = 0 ] || fail "apt-get could not install slurm-wlm and munge: see $log"
    rm -f "$log"
fi

mkdir -p "$STATE/ctld" "$STATE/d" /run/munge /var/log/munge /etc/slurm
[ -s /etc/munge/munge.key ] || (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
chmod 700 /etc/munge
chmod 400 /etc/munge/munge.key
chmod 755 /run/munge

# The life of credentials is also how long a requeued job waits; Slurm's own two minutes are long for a test.
# A node that says less than its configuration is drained: leave room.
memory=$(awk '/^MemTotal/ {printf "%d", $2 / 1024 * 0.9}' /proc/meminfo)
cat >"$STATE/slurm.conf" <<EOF
ClusterName=lmsat
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=3600
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/d
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
EOF
# sbatch and the rest look here.
if [ -e /etc/slurm/slurm.conf ] && ! grep -q '^ClusterName=lmsat$' /etc/slurm/slurm.conf; then
    fail "/etc/slurm/slurm.conf is another cluster's: move it away"
fi
ln -sf "$STATE/slurm.conf" /etc/slurm/slurm.conf

if ! pgrep -x munged >/dev/null; then
    setpriv --reuid munge --regid munge --init-groups munged
    touch "$STATE/munged"
fi
pgrep -x slurmctld >/dev/null || slurmctld
pgrep -x slurmd >/dev/null || slurmd

for _ in $(seq 120); do
    state=$(sinfo --noheader --format %T 2>/dev/null || true)
    case $state in
    idle | mixed | allocated)
        echo "Slurm $(sinfo --version | cut -d' ' -f2) is up: node $HOST, $(nproc) CPUs, $memory MB, $state"
        exit 0
        ;;
    down* | drained*) scontrol update NodeName="$HOST" State=RESUME 2>/dev/null || true ;;
    esac
    sleep 0.5
done
fail "no node is idle after a minute (sinfo says '$state'): see $STATE/slurmctld.log and $STATE/slurmd.log"
