#!/bin/bash
# A real SLURM on one Debian machine, for tests, as root: a controller and some nodes, each a slurmd.
#
#   cluster.sh start   install what is missing, start, print the line that makes sbatch and srun use it
#   cluster.sh stop    end what the start with the same SLURM_TEST_DIR has started
#
#   SLURM_TEST_DIR     where everything lies: state, logs, keys (start's default: a new folder, printed)
#   NODES=2  CPUS=4  GPUS=4    nodes n1, n2, ... and the CPUs and GPUs that each pretends to have
set -eu
here=$(cd "$(dirname "$0")" && pwd)
nodes=${NODES:-2}
cpus=${CPUS:-4}
gpus=${GPUS:-4}

die() { echo "cluster.sh: $*" >&2; exit 1; }

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
  local tries=$(($1 * 10))
  shift
  until "$@"; do
    [ $((tries -= 1)) -gt 0 ] || return 1
    sleep 0.1
  done
}

install_packages() {
  local packages=()
  type slurmctld slurmd srun munged > /dev/null 2>&1 || packages+=(slurmctld slurmd slurm-client munge)
  compgen -G "/usr/lib/*/pmix2/lib/libpmix.so.2" > /dev/null || packages+=(libpmix2)
  if [ ${#packages[@]} -gt 0 ]; then
    apt-get -qq update # an image's lists are old and name files that the mirror no longer has
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}"
  fi
  # SLURM's PMIx plugin opens the library by the name that only the -dev package has.
  for library in /usr/lib/*/pmix2/lib/libpmix.so.2; do
    [ -e "${library%.2}" ] || ln -s libpmix.so.2 "${library%.2}"
  done
}

unused() { ! (: < "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# The first of as many adjacent ports as there are daemons, below the range that the kernel picks from.
find_ports() {
  local first port
  for first in $(shuf -i 20000-30000 -n 50); do
    for port in $(seq "$first" $((first + nodes))); do unused "$port" || continue 2; done
    echo "$first"
    return
  done
  die "no free ports"
}

configure() {
  local host port i
  host=$(hostname -s)
  port=$(find_ports)
  mkdir -p "$dir"/{state,log,munge}
  chmod 711 "$dir" "$dir/munge" # munged insists that anyone can reach its socket
  (umask 077 && head -c 128 /dev/urandom > "$dir/munge/key")
  sed "s#@DIR@#$dir#; s#@HOST@#$host#; s#@PORT@#$port#; s#@CPUS@#$cpus#g; s#@GPUS@#$gpus#" "$here/slurm.conf.in" \
    > "$dir/slurm.conf"
  { echo "127.0.0.1 $host"; grep -v "^127.0.1.1" /etc/hosts; } > "$dir/hosts"
  for i in $(seq "$nodes"); do
    mkdir -p "$dir/spool/n$i" "$dir/tmp/n$i"
    echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + i))" >> "$dir/slurm.conf"
    echo "127.0.0.1 n$i" >> "$dir/hosts"
  done
  mkdir -p "$dir/gpus"
  for i in $(seq 0 $((gpus - 1))); do ln -sf /dev/null "$dir/gpus/gpu$i"; done # a device, as SLURM insists
  echo "NodeName=n[1-$nodes] Name=gpu File=$dir/gpus/gpu[0-$((gpus - 1))]" > "$dir/gres.conf"
  echo "PartitionName=all Nodes=ALL Default=YES" >> "$dir/slurm.conf"
}

all_idle() { [ "$(sinfo -h -N -t idle -o %N 2> /dev/null | wc -l)" -eq "$nodes" ]; }

start() {
  [ "$(id -u)" -eq 0 ] || die "needs root"
  install_packages
  configure
  munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/munge/seed"
  slurmctld
  for i in $(seq "$nodes"); do
    # shellcheck disable=SC2016 # the inner shell expands them
    # A host name of its own for each node, which the others can resolve: MPI tells nodes apart by it.
    HOSTS=$dir/hosts NODE=n$i unshare --uts --mount sh -c \
      'hostname "$NODE" && mount --bind "$HOSTS" /etc/hosts && exec slurmd -N "$NODE"'
  done
  wait_for 30 all_idle || die "the nodes did not come up: see $dir/log"
}

no_jobs() { [ -z "$(timeout 10 squeue -h 2> /dev/null)" ]; }
# Also true of a zombie, which some containers' init never collects.
gone() { [ ! -e "/proc/$1/exe" ]; }

# runs PIDFILE: the process of this id is there, and still is the daemon that wrote the file
runs() {
  local name=${1##*/}
  [ -s "$1" ] && [ "$(cat "/proc/$(< "$1")/comm" 2> /dev/null)" = "${name%%.*}" ]
}

end() {
  local pid
  runs "$1" || return 0
  pid=$(< "$1")
  kill "$pid"
  wait_for 10 gone "$pid" || kill -KILL "$pid"
}

stop() {
  # Jobs first: they would outlive their slurmd.
  if runs "$dir/slurmctld.pid" && ! no_jobs; then
    timeout 10 squeue -h -o %A | xargs -r timeout 10 scancel || true
    wait_for 20 no_jobs || echo "cluster.sh: some jobs did not end" >&2
  fi
  for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do end "$file"; done
}

case "${1-}" in
  start)
    dir=${SLURM_TEST_DIR:-$(mktemp -d "${TMPDIR:-/tmp}/slurm-XXXXXX")}
    mkdir -p "$dir" && dir=$(cd "$dir" && pwd)
    ! runs "$dir/slurmctld.pid" || die "a cluster already runs in $dir"
    export SLURM_CONF=$dir/slurm.conf
    # A trap and not "start || ...", which would switch off "set -e" within. The daemons must not hold the
    # caller's standard output: a program that reads it to its end would wait for them.
    trap 'cat "$dir/start.log" >&2; stop' EXIT
    start > "$dir/start.log" 2>&1 < /dev/null
    trap - EXIT
    echo "export SLURM_TEST_DIR=$dir SLURM_CONF=$SLURM_CONF"
    ;;
  stop)
    dir=${SLURM_TEST_DIR:?must name the folder that start printed}
    export SLURM_CONF=$dir/slurm.conf
    stop
    ;;
  *) die "say start or stop" ;;
esac
