# shellcheck shell=bash
# Another cluster, that somebody else runs: images go to the registry that it pulls from, the S3 server
# runs there as a pod, and nothing is started on this machine but a forwarded port. Only
# TOWLINE_TEST_KUBECONFIG selects it.

readonly external_namespace=towline-test

# Names hold the hash of all images, so a node never runs an older one that it has by the same name.
external_image_prefix() { printf '%s/towline-test/%s/' "$TOWLINE_TEST_REGISTRY" "$(cat "$images"/*.current 2>/dev/null | sha256sum | cut -c1-12)"; }

# TOWLINE_TEST_REGISTRY_FLAGS: more for `buildah push`, such as --tls-verify=false or --creds.
push_images() {
  local name tag prefix
  prefix=$(external_image_prefix)
  mkdir -p "$state/pushed"
  for name in versitygw mariadb mysql controller agent-mariadb agent-mysql fault-proxy; do
    { read -r _ tag <"$images/$name.current"; } 2>/dev/null || continue
    [[ $(cat "$state/pushed/$name" 2>/dev/null) != "$prefix$tag" ]] || continue
    say "pushing $prefix$tag"
    # shellcheck disable=SC2086
    buildah_here push -q ${TOWLINE_TEST_REGISTRY_FLAGS:-} "localhost/$tag" "docker://$prefix$tag" >/dev/null ||
      die "the registry $TOWLINE_TEST_REGISTRY took no image: \`buildah login ${TOWLINE_TEST_REGISTRY%%/*}\` first?"
    printf '%s' "$prefix$tag" >"$state/pushed/$name"
  done
}

external_up() {
  install_packages
  build_programs
  kubectl_cluster get --raw /readyz >/dev/null || die "the cluster of TOWLINE_TEST_KUBECONFIG ($TOWLINE_TEST_KUBECONFIG) does not answer"
  write_s3_credentials
  make_images versitygw
  kubectl_cluster create namespace "$external_namespace" --dry-run=client -o yaml | kubectl_cluster apply -f - >/dev/null
  kubectl_cluster -n "$external_namespace" create secret generic s3 --dry-run=client -o yaml \
    --from-literal=ROOT_ACCESS_KEY_ID="$(s3_access_key)" --from-literal=ROOT_SECRET_ACCESS_KEY="$(s3_secret_key)" |
    kubectl_cluster apply -f - >/dev/null
  kubectl_cluster -n "$external_namespace" apply -f - >/dev/null < <(sed "s|@IMAGE@|$(external_image_prefix)versitygw:dev|" "$here/manifests/s3.yaml")
  kubectl_cluster -n "$external_namespace" rollout status deployment/s3 --timeout=180s >/dev/null ||
    die "the S3 server did not start: kubectl -n $external_namespace describe pods"
  start s3-forward "$here/cluster" kubectl -n "$external_namespace" port-forward service/s3 "$s3_port:$s3_port"
  wait_for 30 "the forwarded port of the S3 server" s3_ready || { log_tail s3-forward; exit 1; }
  say "ready: tests will use the cluster of $TOWLINE_TEST_KUBECONFIG"
}

external_down() {
  stop s3-forward
  kubectl_cluster delete namespace "$external_namespace" --ignore-not-found
  rm -rf "$state"
}

external_status() {
  running s3-forward || { say "not set up (\`tests/cluster/cluster up\`)"; return 1; }
  kubectl_cluster -n "$external_namespace" get pods
}

external_s3_endpoint() { printf 'http://s3.%s.svc:%s' "$external_namespace" "$s3_port"; }
external_s3_endpoint_here() { printf 'http://127.0.0.1:%s' "$s3_port"; }
