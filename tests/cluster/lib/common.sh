# shellcheck shell=bash disable=SC2034
# Where things are kept, and how the scripts speak.

# What was built lives in the cache; what one running cluster owns lives in the state folder.
readonly cache=${TOWLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/towline}
# Another cluster has a state of its own, so that it and the local one do not meet.
if [[ -n ${TOWLINE_TEST_KUBECONFIG:-} ]]; then readonly state=$cache/external; else readonly state=${TOWLINE_STATE:-$cache/cluster}; fi

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# have PROGRAM: it can be run.
have() { command -v "$1" >/dev/null 2>&1; }

# with_lock FUNCTION ARG..: one command at a time changes the cache or the cluster.
with_lock() {
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  if have flock && ! flock -n 9; then
    say "waiting for another tests/cluster/cluster command to end"
    flock 9
  fi
  # What an interrupted command left.
  rm -rf "$cache/work"
  "$@"
}

# new_work: a folder to work in, on the cache's file system; only under the lock.
new_work() { mkdir -p "$cache/work" && mktemp -d -p "$cache/work"; }

# wait_for SECONDS WHAT COMMAND ARG..: until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || { printf 'error: waited in vain for %s\n' "$what" >&2; return 1; }
    sleep 0.2
  done
}

# external: another cluster was asked for. A plain KUBECONFIG never counts: it may be production.
external() { [[ -n ${TOWLINE_TEST_KUBECONFIG:-} ]]; }

kubeconfig() { if external; then printf '%s' "$TOWLINE_TEST_KUBECONFIG"; else printf '%s' "$state/admin.kubeconfig"; fi; }

kubectl_cluster() { "$(programs_dir)/kubectl" --kubeconfig "$(kubeconfig)" "$@"; }
