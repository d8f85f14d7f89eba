# shellcheck shell=bash
# Down: by recorded process ids only, and only while they are the processes that we started.

cluster_down() {
  if external; then external_down; return; fi
  if [[ ! -d $state ]]; then
    say "no cluster is there"
    return
  fi
  say "stopping the cluster"
  stop volumes kubelet kube-proxy kube-scheduler kube-controller-manager
  # Containers outlive containerd: without it they could not be found.
  if [[ -f $state/containerd.toml ]]; then start_containerd || warn "containerd does not start: containers may be left"; fi
  remove_containers
  stop kube-apiserver etcd containerd versitygw
  local mount
  # Mounts of pods: the innermost first.
  awk -v s="$state/" 'index($2, s) == 1 {print $2}' /proc/self/mounts | sort -r | while read -r mount; do
    umount -l "$(printf '%b' "$mount")" || true
  done
  network_down
  unlink_volumes
  rm -rf --one-file-system "$state"
}
