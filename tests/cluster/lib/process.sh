# shellcheck shell=bash
# Processes that belong to the cluster. A process is remembered by its id together with the time at
# which the kernel started it, so an id that was given to somebody else since is never touched.

# started_at PID: the start time in clock ticks since boot (proc(5), field 22 of stat), with the
# boot's own id, for ticks begin again with every boot.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The second field is the program's name in parentheses and may hold blanks.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [[ $1 != Z ]] || return 1
  printf '%s/%s' "$(</proc/sys/kernel/random/boot_id)" "${20}"
}

# running NAME: the process that was started under this name still runs.
running() {
  local pid since
  { read -r pid since <"$state/run/$1"; } 2>/dev/null || return 1
  [[ $(started_at "$pid" || true) == "$since" ]]
}

pid_of() { local pid _; read -r pid _ <"$state/run/$1"; printf '%s' "$pid"; }

# start NAME COMMAND ARG..: in a session of its own, its output in the log folder; a process that
# already runs is left as it is.
start() {
  local name=$1 pid
  shift
  running "$name" && return
  mkdir -p "$state/run" "$state/log"
  [[ ! -f $state/log/$name.log ]] || mv "$state/log/$name.log" "$state/log/$name.log.old"
  # Without job control a child leads no process group, so setsid need not fork and $! is its id.
  setsid "$@" >"$state/log/$name.log" 2>&1 </dev/null 9>&- &
  pid=$!
  printf '%s %s\n' "$pid" "$(started_at "$pid")" >"$state/run/$name"
  disown "$pid"
}

# stop NAME..: asks all of them, waits, insists after 10 s; returns when the processes are gone, so
# that their ports are free.
stop() {
  local name deadline=$((SECONDS + 10))
  for name in "$@"; do signal TERM "$name"; done
  for name in "$@"; do
    while running "$name" && ((SECONDS < deadline)); do sleep 0.1; done
    signal KILL "$name"
    while running "$name"; do sleep 0.1; done
    rm -f "$state/run/$name"
  done
}

# signal SIGNAL NAME: to the process and what it started.
signal() { ! running "$2" || kill -"$1" -- "-$(pid_of "$2")" 2>/dev/null || true; }

# log_tail NAME: the last lines that a process wrote, for an error message.
log_tail() {
  printf -- '--- the end of %s\n' "$state/log/$1.log" >&2
  tail -n 15 "$state/log/$1.log" >&2 2>/dev/null || true
}
