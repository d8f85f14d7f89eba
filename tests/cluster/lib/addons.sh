# shellcheck shell=bash
# What makes a bare cluster usable: DNS, and volumes for PersistentVolumeClaims.

# The controller manager's host path provisioner always writes here.
readonly volumes_link=/tmp/hostpath_pv

start_addons() {
  kubectl_cluster apply -f - >/dev/null < <(sed "s/@DNS_SERVICE_IP@/$dns_service_ip/" "$here/manifests/coredns.yaml")
  kubectl_cluster apply -f "$here/manifests/storage-class.yaml" >/dev/null
  start volumes "$here/cluster" volumes
}

# So the fixed folder is a link into the state folder.
link_volumes() {
  mkdir -p "$state/volumes"
  [[ $(readlink "$volumes_link" || true) != "$state/volumes" ]] || return 0
  ln -sT "$state/volumes" "$volumes_link" 2>/dev/null || {
    [[ -L $volumes_link && ! -e $volumes_link ]] || die "$volumes_link exists and is not ours: Kubernetes' host path volumes would be mixed up with it; move it away"
    ln -sfT "$state/volumes" "$volumes_link"
  }
}

unlink_volumes() { [[ $(readlink "$volumes_link" || true) != "$state/volumes" ]] || rm -f "$volumes_link"; }

# open_volumes: runs as a process of its own. The provisioner makes folders that only root may enter,
# and fsGroup has no effect on host paths; real provisioners give a volume that any pod can use. A
# folder that somebody has taken into use is left alone.
open_volumes() {
  local path
  while :; do
    kubectl_cluster get persistentvolumes --watch -o 'jsonpath={.spec.hostPath.path}{"\n"}' |
      while read -r path; do
        if [[ -d $path && $(stat -c %U:%a "$path") == root:750 && -z $(ls -A "$path") ]]; then chmod 0777 "$path"; fi
      done || true
    sleep 1
  done
}

dns_ready() {
  [[ $(kubectl_cluster -n kube-system get deployment coredns -o 'jsonpath={.status.readyReplicas}' --request-timeout=3s 2>/dev/null) == 1 ]]
}
