# shellcheck shell=bash
# Keys of the test cluster: a small authority, one certificate for each component, valid for 30 days.

readonly pki=$state/pki

make_pki() {
  mkdir -p "$pki"
  chmod 700 "$pki"
  [[ -f $pki/complete ]] && return
  openssl ecparam -name prime256v1 -genkey -noout -out "$pki/ca.key"
  openssl req -x509 -new -key "$pki/ca.key" -days 30 -subj /CN=towline-test-ca -out "$pki/ca.crt"
  certificate apiserver /CN=kube-apiserver "IP:$node_ip,IP:127.0.0.1,IP:$api_service_ip,DNS:localhost,DNS:kubernetes.default.svc"
  certificate admin /O=system:masters/CN=admin
  certificate kube-controller-manager /CN=system:kube-controller-manager
  certificate kube-scheduler /CN=system:kube-scheduler
  certificate kube-proxy /CN=system:kube-proxy
  certificate kubelet "/O=system:nodes/CN=system:node:$node_name" "IP:$node_ip,DNS:$node_name"
  openssl genrsa -out "$pki/service-accounts.key" 2048 2>/dev/null
  openssl rsa -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub" 2>/dev/null
  local name
  for name in admin kube-controller-manager kube-scheduler kube-proxy kubelet; do write_kubeconfig "$name"; done
  touch "$pki/complete"
}

# pki_lasts: the certificates are good for another day.
pki_lasts() { openssl x509 -checkend 86400 -noout -in "$pki/apiserver.crt" >/dev/null 2>&1; }

# certificate NAME SUBJECT [ALTERNATIVE_NAMES]
certificate() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$pki/$1.key"
  openssl req -new -key "$pki/$1.key" -subj "$2" -out "$pki/$1.csr"
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 30 -out "$pki/$1.crt" \
    -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}") 2>/dev/null
}

write_kubeconfig() {
  (umask 077 && cat >"$state/$1.kubeconfig") <<YAML
apiVersion: v1
kind: Config
clusters: [{name: towline-test, cluster: {server: "https://$node_ip:6443", certificate-authority: $pki/ca.crt}}]
users: [{name: $1, user: {client-certificate: $pki/$1.crt, client-key: $pki/$1.key}}]
contexts: [{name: towline-test, context: {cluster: towline-test, user: $1}}]
current-context: towline-test
YAML
}
