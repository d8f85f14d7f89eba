# shellcheck shell=bash
# What Debian offers for a suite that is not this machine's own: exact package versions, so that an
# image is built anew when, and only when, its packages changed. Mirror, proxy and certificates are
# this machine's; they are used while building and stay out of the images.

# mirror_of PATTERN: where this machine gets a release from.
mirror_of() {
  local uri
  # shellcheck disable=SC2016 # apt-get expands it
  uri=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v p="$1" '$1 ~ p {print $2; exit}')
  [[ -n $uri ]] || die "this machine's apt knows no Debian archive: run apt-get update"
  printf '%s' "$uri"
}

debian_mirror() { mirror_of "^$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-stable}")\$"; }
security_mirror() { mirror_of '-security$'; }

# sources_of SUITE: its sources.list.
sources_of() {
  printf 'deb %s %s main\n' "$(debian_mirror)" "$1"
  [[ $1 != bookworm ]] || printf 'deb %s bookworm-updates main\ndeb %s bookworm-security main\n' "$(debian_mirror)" "$(security_mirror)"
}

# apt_of SUITE PROGRAM ARG..: apt-get or apt-cache with lists of their own.
apt_of() {
  local root=$cache/apt/$1 program=$2
  shift 2
  "$program" -o Dir::State="$root/state" -o Dir::State::status="$root/status" -o Dir::Cache="$root/cache" \
    -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin \
    -o Dir::Etc::SourceList="$root/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Acquire::Check-Valid-Until=false -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o APT::Sandbox::User=root "$@"
}

# refresh_suite SUITE: its package lists, at most a day old. sid's Release may call itself expired.
refresh_suite() {
  local root=$cache/apt/$1
  mkdir -p "$root"/{state/lists/partial,cache/archives/partial}
  touch "$root/status"
  [[ -z $(find "$root/fresh" -mmin -1440 2>/dev/null) ]] || return 0
  say "reading Debian $1's package lists"
  sources_of "$1" >"$root/sources.list"
  rm -rf "$root/exact"
  if apt_of "$1" apt-get -qq update; then
    touch "$root/fresh"
  elif [[ -e $root/fresh ]]; then
    warn "Debian $1's package lists could not be read: using those of $(date -r "$root/fresh" +%F)"
  else
    die "Debian $1's package lists could not be read: see the lines above"
  fi
}

# exact SUITE PACKAGE..: `package=version` for each, as apt-get takes it, in the order of their names.
# An answer is kept until the lists are read again: a look-up takes a second.
exact() {
  local suite=$1 found kept
  shift
  kept="$cache/apt/$suite/exact/$*"
  if [[ ! -f $kept ]]; then
    found=$(apt_of "$suite" apt-cache policy "$@" |
      awk '/^[^ ]/ {name = $1; sub(/:$/, "", name)} $1 == "Candidate:" && $2 != "(none)" {print name "=" $2}' | sort)
    [[ $(wc -l <<<"$found") == "$#" ]] || die "Debian $suite does not have all of: $*"
    mkdir -p "$cache/apt/$suite/exact"
    tr '\n' ' ' <<<"$found" >"$kept"
  fi
  cat "$kept"
}

# build_settings SUITE FOLDER: this machine's way to the packages, to be mounted while an image is built.
build_settings() {
  mkdir -p "$2"
  cp "$cache/apt/$1/sources.list" "$2/sources.list"
  apt-config dump | grep -E '^Acquire::(http|https|ftp|Check|Retries|Proxy)' >"$2/apt.conf" || true
  printf 'Acquire::Check-Valid-Until "false";\n' >>"$2/apt.conf"
  if [[ -f /etc/ssl/certs/ca-certificates.crt ]]; then
    cp /etc/ssl/certs/ca-certificates.crt "$2/ca.crt"
    printf 'Acquire::https::CAInfo "/run/build/ca.crt";\n' >>"$2/apt.conf"
  fi
}
