# shellcheck shell=bash
# What tests and the demo need to know.

print_env() {
  local bin
  bin=$(programs_dir)
  if ! external && [[ ! -f $state/key ]]; then die "the cluster is not up: run \`make cluster-up\`"; fi
  put TOWLINE_E2E_KUBECONFIG "$(kubeconfig)"
  put TOWLINE_E2E_S3_ENDPOINT "$(s3_endpoint)"
  put TOWLINE_E2E_S3_ENDPOINT_HERE "$(s3_endpoint_here)"
  put TOWLINE_E2E_S3_ACCESS_KEY "$(s3_access_key)"
  put TOWLINE_E2E_S3_SECRET_KEY "$(s3_secret_key)"
  put TOWLINE_E2E_IMAGES "$(image_prefix)"
  put TOWLINE_E2E_IMAGE_ARCHIVES "$images"
  put TOWLINE_VERSITYGW "$bin/versitygw"
  put TOWLINE_MOTO "$(moto_server)"
  put TOWLINE_AZURITE "$(azurite_blob)"
  put TOWLINE_E2E_TOWLINE "$(binary towline)"
  put TOWLINE_HELM_DOCS "$(helm_docs_dir)/helm-docs"
  put TOWLINE_DASHBOARDS "$(dashboards_dir)/dashboards"
  put TOWLINE_KUBECONFORM "$(kubeconform_dir)/kubeconform"
  put TOWLINE_MONITORING_CRDS "$(monitoring_crds)"
  # shellcheck disable=SC2016
  printf 'export PATH=%q:"$PATH"\n' "$bin"
}

put() { printf 'export %s=%q\n' "$1" "$2"; }

# s3_endpoint: as pods reach it.
s3_endpoint() { if external; then external_s3_endpoint; else printf 'http://%s:%s' "$node_ip" "$s3_port"; fi; }

# s3_endpoint_here: as this machine reaches it.
s3_endpoint_here() { if external; then external_s3_endpoint_here; else s3_endpoint; fi; }
