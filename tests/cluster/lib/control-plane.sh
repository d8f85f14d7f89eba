# shellcheck shell=bash
# etcd, the API server, the controller manager and the scheduler.

start_control_plane() {
  local bin
  bin=$(programs_dir)
  start etcd "$bin/etcd" --data-dir "$state/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 \
    --listen-peer-urls http://127.0.0.1:23800 --initial-advertise-peer-urls http://127.0.0.1:23800 \
    --initial-cluster default=http://127.0.0.1:23800
  # The node's name cannot be resolved, so kubelet is called by its address.
  start kube-apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:23790 \
    --secure-port=6443 --bind-address=0.0.0.0 --advertise-address="$node_ip" \
    --kubelet-preferred-address-types=InternalIP --service-cluster-ip-range="$service_range" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
    --client-ca-file="$pki/ca.crt" --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/service-accounts.pub" --service-account-signing-key-file="$pki/service-accounts.key"
  wait_for 60 "the API server" api_ready || { log_tail etcd; log_tail kube-apiserver; return 1; }
  start kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$state/kube-controller-manager.kubeconfig" \
    --use-service-account-credentials --leader-elect=false --enable-hostpath-provisioner \
    --service-account-private-key-file="$pki/service-accounts.key" --root-ca-file="$pki/ca.crt"
  start kube-scheduler "$bin/kube-scheduler" --kubeconfig="$state/kube-scheduler.kubeconfig" --leader-elect=false
}

api_ready() { kubectl_cluster get --raw /readyz --request-timeout=3s; }
