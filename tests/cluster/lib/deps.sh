# shellcheck shell=bash
# Debian packages, all of them from Debian 12 itself.

readonly packages=(
  # the cluster
  containerd runc containernetworking-plugins iproute2 nftables iptables conntrack util-linux openssl
  # images
  buildah debootstrap debian-archive-keyring gcc libc6-dev
  # what tests and demo open archives with, and compare against
  ca-certificates curl jq make zstd age mariadb-server mariadb-client mariadb-backup prometheus prometheus-alertmanager rclone
  # what looks at the status page
  chromium fonts-dejavu-core
  # the stand-ins for clouds
  python3-venv
  # what checks these scripts
  shellcheck
)

# Debian's npm brings its own Node, which another Node on the machine may conflict with.
wanted_packages() {
  printf '%s\n' "${packages[@]}"
  have npm || printf '%s\n' nodejs npm
}

missing_packages() {
  local package
  while read -r package; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
  done < <(wanted_packages)
}

install_packages() {
  local missing
  missing=$(missing_packages)
  [[ -n $missing ]] || return 0
  [[ $(id -u) == 0 ]] || die "these Debian packages are missing, and only root can install them: ${missing//$'\n'/ }"
  say "installing ${missing//$'\n'/ }"
  apt-get -qq update || die "apt-get update failed: see the lines above"
  # Only the programs are wanted. Where nothing says so yet, installed services are kept from
  # starting for the time of the installation (invoke-rc.d(8): 101 means no).
  local policy=/usr/sbin/policy-rc.d ours=
  if [[ ! -e $policy ]]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  local rc=0
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >"$cache/apt-install.log" 2>&1 || rc=$?
  [[ -z $ours ]] || rm -f "$policy"
  ((rc == 0)) || { tail -n 20 "$cache/apt-install.log" >&2; die "apt-get could not install ${missing//$'\n'/ }: see above and $cache/apt-install.log"; }
}
