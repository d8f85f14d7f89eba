# shellcheck shell=bash
# What checks and lists the parts of Towline, by version, from crates.io and Go modules.

readonly CARGO_DENY=0.20.2
# The list of crates that it writes into the programs is the image's: one version for both.
readonly CARGO_AUDITABLE=$(sed -n 's/^ARG CARGO_AUDITABLE=//p' "$repo/deploy/docker/Dockerfile")
readonly SYFT=v1.57.1

cargo_deny() { printf '%s' "$cache/cargo-deny-$CARGO_DENY/bin"; }
cargo_auditable() { printf '%s' "$cache/cargo-auditable-$CARGO_AUDITABLE/bin"; }
krew_dir() { printf '%s' "$cache/krew-$KREW"; }
syft_dir() { printf '%s' "$cache/syft-$SYFT"; }

install_cargo_deny() { install_crate cargo-deny "$CARGO_DENY" --no-default-features; }
install_cargo_auditable() { install_crate cargo-auditable "$CARGO_AUDITABLE"; }
install_syft() {
  mkdir -p "$(syft_dir)"
  install_module "$(syft_dir)" syft "github.com/anchore/syft/cmd/syft@$SYFT"
}

install_krew() {
  local program
  for program in krew validate-krew-manifest; do install_module "$(krew_dir)" "$program" "sigs.k8s.io/krew/cmd/$program@$KREW"; done
}

# install_crate NAME VERSION [CARGO_ARG..]: built for the least time, for each runs for seconds.
install_crate() {
  local name=$1 version=$2 work
  shift 2
  [[ ! -x $cache/$name-$version/bin/$name ]] || return 0
  say "building $name $version"
  work=$(new_work)
  CARGO_TARGET_DIR=$work/target CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --quiet --locked --root "$work/root" "$name@$version" "$@" >"$cache/programs.log" 2>&1 ||
    { tail -n 20 "$cache/programs.log" >&2; rm -rf "$work"; die "$name $version could not be installed: see above"; }
  rm -rf "$cache/$name-$version"
  mv "$work/root" "$cache/$name-$version"
  rm -rf "$work"
}
