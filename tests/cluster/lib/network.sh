# shellcheck shell=bash disable=SC2034
# Addresses. The node's must not be loopback, so it has a bridge of its own: servers on this host are
# reached from pods at that address.

readonly node_name=node0
readonly node_ip=10.250.0.1
readonly pod_range=10.251.0.0/24
readonly service_range=10.252.0.0/24
readonly api_service_ip=10.252.0.1
readonly dns_service_ip=10.252.0.10

network_up() {
  if ! ip link show tl-node >/dev/null 2>&1; then
    ip link add tl-node type bridge
    ip addr add "$node_ip/24" dev tl-node
  fi
  ip link set tl-node up
  sysctl -qw net.ipv4.ip_forward=1
  mkdir -p "$state/cni/net.d"
  cat >"$state/cni/net.d/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "tl-pods", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_range"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$state/cni/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
}

network_down() {
  local link
  for link in tl-node tl-pods; do ip link del "$link" 2>/dev/null || true; done
  nft delete table ip kube-proxy 2>/dev/null || true
}
