# shellcheck shell=bash
# How the demos speak: a heading for each step, each command before it is run.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cluster=$repo/tests/cluster/cluster
profile=${PROFILE:-dev}
[[ $profile != dev ]] || profile=debug
programs=${CARGO_TARGET_DIR:-$repo/target}/$profile
readonly repo cluster programs

step() { printf '\n\033[1m── %s\033[0m\n' "$*"; }
note() { printf '   %s\n' "$*"; }

# What is said reaches the reader where a command's own output does not.
exec 3>&1

# show COMMAND ARG..: prints the command, then runs it.
show() {
  printf '\033[36m$ %s\033[0m\n' "${*/#$programs\//}" >&3
  "$@"
}

# show_sh SCRIPT: the same for a pipeline.
show_sh() {
  printf '\033[36m$ %s\033[0m\n' "$1"
  bash -euo pipefail -c "$1"
}

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# wait_for SECONDS WHAT COMMAND ARG..: until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "waited in vain for $what"
    sleep 0.3
  done
}

build() {
  step "Building Towline (quick when nothing changed)"
  (cd "$repo" && cargo build --quiet --locked --profile "${PROFILE:-dev}" --bins)
}

# SQL that makes a small shop of some 50 MB: text, and pictures that no compression makes smaller.
# MariaDB's sequence engine gives the numbers.
shop_sql() {
  cat <<'SQL'
CREATE DATABASE shop;
USE shop;
CREATE TABLE orders (id INT PRIMARY KEY, customer VARCHAR(60), amount DECIMAL(10,2));
CREATE TABLE pictures (id INT PRIMARY KEY, image MEDIUMBLOB);
INSERT INTO orders SELECT seq, CONCAT('customer ', seq % 997), seq / 4 FROM seq_1_to_100000;
INSERT INTO pictures SELECT seq, CONCAT(RANDOM_BYTES(1024), RANDOM_BYTES(1024), RANDOM_BYTES(1024), RANDOM_BYTES(1024)) FROM seq_1_to_8000;
SQL
}
