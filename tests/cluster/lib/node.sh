# shellcheck shell=bash
# containerd, kubelet and kube-proxy: the one node.

ctr_cluster() { ctr -a "$state/containerd/containerd.sock" -n k8s.io "$@"; }

start_containerd() {
  mkdir -p "$state/containerd"
  # restrict_oom_score_adj: a sandbox may lack CAP_SYS_RESOURCE.
  cat >"$state/containerd.toml" <<TOML
version = 2
root = "$state/containerd/root"
state = "$state/containerd/state"
[grpc]
  address = "$state/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni/net.d"
[plugins."io.containerd.internal.v1.opt"]
  path = "$state/containerd/opt"
TOML
  start containerd containerd -c "$state/containerd.toml"
  wait_for 30 containerd ctr_cluster version || { log_tail containerd; return 1; }
}

start_node() {
  local bin
  bin=$(programs_dir)
  mkdir -p "$state/kubelet"
  : >"$state/resolv.conf"
  # failCgroupV1 and cgroupfs: hosts with cgroup version 1 and without systemd work too.
  cat >"$state/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
clusterDNS: [$dns_service_ip]
clusterDomain: cluster.local
resolvConf: $state/resolv.conf
containerRuntimeEndpoint: unix://$state/containerd/containerd.sock
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: 100Mi}
imageGCHighThresholdPercent: 100
localStorageCapacityIsolation: false
YAML
  start kubelet "$bin/kubelet" --config="$state/kubelet.yaml" --kubeconfig="$state/kubelet.kubeconfig" \
    --root-dir="$state/kubelet" --hostname-override="$node_name" --node-ip="$node_ip" --v=2
  # nftables: iptables-legacy may lack its kernel modules.
  cat >"$state/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $state/kube-proxy.kubeconfig}
clusterCIDR: $pod_range
hostnameOverride: $node_name
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
  start kube-proxy "$bin/kube-proxy" --config="$state/kube-proxy.yaml"
}

node_ready() {
  [[ $(kubectl_cluster get node "$node_name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' --request-timeout=3s 2>/dev/null) == True ]]
}

# remove_containers: what kubelet left when it was stopped, and the network namespaces of its pods.
remove_containers() {
  local id network
  running containerd || return 0
  for id in $(ctr_cluster tasks ls -q 2>/dev/null); do ctr_cluster tasks kill -s SIGKILL "$id" >/dev/null 2>&1 || true; done
  for id in $(ctr_cluster containers ls -q 2>/dev/null); do
    network=$(ctr_cluster containers info "$id" 2>/dev/null | jq -r '.Spec.linux.namespaces[]? | select(.type == "network") | .path // empty') || true
    wait_for 10 "container $id to end" remove_task "$id" || true
    ctr_cluster containers rm "$id" >/dev/null 2>&1 || true
    case $network in /run/netns/cni-* | /var/run/netns/cni-*) ip netns delete "${network##*/}" 2>/dev/null || true ;; esac
  done
}

remove_task() { ! ctr_cluster tasks ls -q | grep -qx "$1" || ctr_cluster tasks rm -f "$1"; }
