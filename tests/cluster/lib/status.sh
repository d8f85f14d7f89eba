# shellcheck shell=bash

cluster_status() {
  local name ill
  if external; then external_status; return; fi
  if [[ ! -f $state/key ]]; then
    say "no cluster is there"
    return 1
  fi
  for name in "${components[@]}"; do
    if running "$name"; then printf '%-26s pid %s\n' "$name" "$(pid_of "$name")"; else printf '%-26s not running\n' "$name"; fi
  done
  ill=$(sick)
  if [[ -n $ill ]]; then
    say "not healthy: $ill (\`tests/cluster/cluster up\` repairs it)"
    return 1
  fi
  kubectl_cluster get nodes
  say "healthy: KUBECONFIG=$(kubeconfig), S3 at $(s3_endpoint)"
}
