# shellcheck shell=bash
# Up: a healthy cluster is left as it is, a damaged one is repaired, a broken one is replaced.

readonly components=(etcd kube-apiserver containerd kube-controller-manager kube-scheduler kubelet kube-proxy volumes versitygw)

cluster_up() {
  check_machine || exit 1
  if external; then external_up; return; fi
  install_packages
  build_programs
  if [[ -f $state/key ]] && ! can_keep; then
    say "the cluster that is there cannot be kept ($reason): starting anew"
    cluster_down
  fi
  if [[ -f $state/key ]] && healthy; then
    say "the cluster is up"
    return
  fi
  bring_up || {
    [[ -f $state/key ]] || die "the cluster did not start: see above, and the logs in $state/log"
    say "it could not be repaired: starting anew"
    cluster_down
    bring_up || die "the cluster did not start: see above, and the logs in $state/log"
  }
}

# can_keep: whether what is there can be repaired, if it needs that. Says why not in `reason`.
can_keep() {
  reason=
  if [[ $(<"$state/key") != "$(cluster_key)" ]]; then
    reason="it was set up in another way"
  elif ! pki_lasts; then
    reason="its certificates end"
  elif ! running etcd || ! running containerd; then
    reason="etcd or containerd has ended"
  fi
  [[ -z $reason ]]
}

bring_up() {
  say "starting Kubernetes $KUBERNETES"
  mkdir -p "$state"
  network_up || return 1
  link_volumes || return 1
  make_pki || return 1
  start_s3 || return 1
  start_containerd || return 1
  make_images pause coredns || return 1
  start_control_plane || return 1
  start_node
  start_addons
  wait_for 60 "the node to be Ready" node_ready || { log_tail kubelet; return 1; }
  wait_for 60 "the cluster's DNS" dns_ready || { kubectl_cluster -n kube-system get pods >&2; log_tail kubelet; return 1; }
  cluster_key >"$state/key"
  import_images
  say "the cluster is up: KUBECONFIG=$(kubeconfig)"
}

# cluster_key: changes with whatever decides how the cluster is set up.
cluster_key() {
  cat "$here"/lib/{versions,pki,network,control-plane,node,addons,s3}.sh "$here"/manifests/*.yaml | sha256sum | cut -c1-16
}

# sick: the names of what does not run or does not answer.
sick() {
  local name
  for name in "${components[@]}"; do running "$name" || printf '%s ' "$name"; done
  api_ready >/dev/null 2>&1 || printf 'api '
  node_ready || printf 'node '
  dns_ready || printf 'dns '
  s3_ready || printf 's3 '
}

healthy() { [[ -z $(sick) ]]; }
