# shellcheck shell=bash
# What a machine must have before anything is started. Everything that lacks is said at once.

# version_at_least HAVE LEAST
version_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }

# free_gib FOLDER: of the file system that the folder is, or will be, on.
free_gib() {
  local folder=$1
  until [[ -d $folder ]]; do folder=$(dirname "$folder"); done
  df -BG --output=avail "$folder" | tail -n1 | tr -dc 0-9
}

# cgroup_with CONTROLLER: version 1 (its own mount) or version 2 (listed at the root).
cgroup_with() {
  [[ -d /sys/fs/cgroup/$1 ]] || grep -qw "$1" /sys/fs/cgroup/cgroup.controllers 2>/dev/null
}

check_machine() {
  local lacks=() go cargo gib
  [[ $(uname -s) == Linux ]] || lacks+=("Linux: this is $(uname -s)")
  if ! external; then
    [[ $(id -u) == 0 ]] || lacks+=("root: the cluster makes bridges, mounts and containers; run as root, or set TOWLINE_TEST_KUBECONFIG and TOWLINE_TEST_REGISTRY to use another cluster")
    local controller
    for controller in cpu memory pids cpuset; do
      cgroup_with "$controller" || lacks+=("the cgroup controller '$controller' under /sys/fs/cgroup: kubelet needs it; in a container, run it privileged with the host's cgroups")
    done
    grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || lacks+=("the kernel's overlay file system (modprobe overlay): images are unpacked with it")
    running kube-apiserver || check_ports
  elif [[ -z ${TOWLINE_TEST_REGISTRY:-} ]]; then
    lacks+=("TOWLINE_TEST_REGISTRY: TOWLINE_TEST_KUBECONFIG is set, so say which registry that cluster pulls from (host[:port][/path]), and log buildah in to it")
  fi
  have apt-get || lacks+=("apt-get: packages and images come from Debian; Debian 12 is what this is tested on")
  if have go; then
    go=$(go env GOVERSION) && go=${go#go}
    version_at_least "$go" "$GO_LEAST" || lacks+=("Go $GO_LEAST or later: $(command -v go) is $go")
  elif [[ ! -x $(programs_dir)/versitygw ]]; then
    lacks+=("Go $GO_LEAST or later: no 'go' in PATH; Kubernetes is built with it")
  fi
  if have cargo; then
    cargo=$(cargo --version | awk '{print $2}')
    version_at_least "$cargo" "$CARGO_LEAST" || lacks+=("cargo $CARGO_LEAST or later: $(command -v cargo) is $cargo")
  else
    lacks+=("cargo $CARGO_LEAST or later: no 'cargo' in PATH; Towline is built with it")
  fi
  gib=$(free_gib "$cache")
  # Measured: 5 GiB of Go and cargo caches, 3 GiB of images in three forms, 1 GiB for test data.
  ((gib >= 12)) || [[ -x $(programs_dir)/versitygw && $gib -ge 4 ]] ||
    lacks+=("disk: 12 GiB free under $cache, there are $gib; TOWLINE_CACHE names another place")
  gib=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) / 1024 / 1024))
  ((gib >= 5)) || lacks+=("memory: 6 GiB, there are $gib")
  if ((${#lacks[@]})); then
    printf 'error: this machine lacks\n' >&2
    printf '  - %s\n' "${lacks[@]}" >&2
    return 1
  fi
}

# Adds to the caller's `lacks` the ports that others hold: two clusters at once cannot be.
check_ports() {
  local port owner
  have ss || return 0
  for port in 6443 7070 10250 10257 10259 23790; do
    owner=$(ss -Hltnp "sport = :$port" 2>/dev/null | grep -o 'users:.*' | head -n1) || true
    if [[ -n $owner ]] && ! ours_on_port "$owner"; then
      lacks+=("port $port: it is held by ${owner#users:}; stop that first (\`tests/cluster/cluster down\` with its TOWLINE_CACHE if it is a cluster of Towline's)")
    fi
  done
}

# ours_on_port OWNER: one of the processes that we recorded holds the port.
ours_on_port() {
  local file name
  for file in "$state"/run/*; do
    name=${file##*/}
    if [[ -f $file ]] && running "$name" && [[ $1 == *"pid=$(pid_of "$name"),"* ]]; then return 0; fi
  done
  return 1
}
