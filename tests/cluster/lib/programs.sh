# shellcheck shell=bash
# Kubernetes and its company, built from Go modules: nothing prebuilt is downloaded.

readonly kubernetes_programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)

readonly kubernetes_minor=$(cut -d. -f2 <<<"$KUBERNETES")

# programs_dir: one folder for each set of versions.
programs_dir() { printf '%s' "$cache/programs-$KUBERNETES-helm-$HELM-coredns-$COREDNS-versitygw-$VERSITYGW"; }

# build_programs: what is not there yet. Another cluster needs only the clients and the S3 server.
build_programs() {
  local dir wanted=("${kubernetes_programs[@]}" etcd)
  dir=$(programs_dir)
  mkdir -p "$dir"
  if external; then wanted=(kubectl); fi
  build_kubernetes "$dir" "${wanted[@]}"
  install_helm
  install_module "$dir" versitygw "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW"
  external || install_module "$dir" coredns "github.com/coredns/coredns@$COREDNS"
}

install_helm() {
  # Without these flags `helm lint` and `helm template` take the cluster for a Kubernetes 1.20.
  local helm=helm.sh/helm/v3/pkg flags='' part
  for part in lint/rules chartutil; do flags+=" -X $helm/$part.k8sVersionMajor=1 -X $helm/$part.k8sVersionMinor=$kubernetes_minor"; done
  mkdir -p "$(programs_dir)"
  install_module "$(programs_dir)" helm "helm.sh/helm/v3/cmd/helm@$HELM" "$flags"
}

# build_all: the same, what only tests of stores and of the chart use, and what `make check` asks.
build_all() {
  build_programs
  install_module "$(helm_docs_dir)" helm-docs "github.com/norwoodj/helm-docs/cmd/helm-docs@$HELM_DOCS"
  install_module "$(kubeconform_dir)" kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@$KUBECONFORM"
  install_dashboards
  copy_monitoring_crds
  install_moto
  install_azurite
  install_cargo_deny
  install_krew
}

# Each in a folder of its own, so that another version of it builds nothing else anew.
helm_docs_dir() { printf '%s' "$cache/helm-docs-$HELM_DOCS"; }
# This one's version is what its sources are.
dashboards_dir() { printf '%s' "$cache/dashboards-$(cat "$repo"/tests/dashboards/{go.mod,go.sum,main.go} | cksum | cut -d' ' -f1)"; }
kubeconform_dir() { printf '%s' "$cache/kubeconform-$KUBECONFORM"; }
monitoring_crds() { printf '%s' "$cache/prometheus-operator-$PROMETHEUS_OPERATOR"; }
moto_server() { printf '%s' "$cache/moto-$MOTO/bin/moto_server"; }
azurite_blob() { printf '%s' "$cache/azurite-$AZURITE/node_modules/azurite/dist/src/blob/main.js"; }

install_moto() {
  [[ ! -e $cache/moto-$MOTO/ready ]] || return 0
  say "installing moto $MOTO"
  # A venv knows its own path: it is made where it stays.
  rm -rf "$cache/moto-$MOTO"
  { python3 -m venv "$cache/moto-$MOTO" && "$cache/moto-$MOTO/bin/pip" --quiet --disable-pip-version-check install "moto[server]==$MOTO"; } \
    >"$cache/programs.log" 2>&1 || { tail -n 20 "$cache/programs.log" >&2; die "moto $MOTO could not be installed: see above"; }
  touch "$cache/moto-$MOTO/ready"
}

install_azurite() {
  [[ ! -f $(azurite_blob) ]] || return 0
  say "installing azurite $AZURITE"
  local work
  work=$(new_work)
  npm install --prefix "$work" --no-audit --no-fund --omit=dev --ignore-scripts "azurite@$AZURITE" >"$cache/programs.log" 2>&1 ||
    { tail -n 20 "$cache/programs.log" >&2; rm -rf "$work"; die "azurite $AZURITE could not be installed: see above"; }
  rm -rf "$cache/azurite-$AZURITE"
  mv "$work" "$cache/azurite-$AZURITE"
}

# What reads dashboards and queries as Grafana and Prometheus do.
install_dashboards() {
  local dir work
  dir=$(dashboards_dir)
  [[ ! -x $dir/dashboards ]] || return 0
  say "building tests/dashboards"
  work=$(new_work)
  (cd "$repo/tests/dashboards" && go_build build -trimpath -ldflags "-s -w" -o "$work/dashboards" .) >"$cache/programs.log" 2>&1 ||
    { tail -n 20 "$cache/programs.log" >&2; rm -rf "$work"; die "tests/dashboards could not be built: see above"; }
  mkdir -p "$dir"
  mv "$work/dashboards" "$dir/dashboards"
  rm -rf "$work"
}

readonly monitoring_kinds=(servicemonitors podmonitors prometheusrules alertmanagerconfigs)

# copy_monitoring_crds: the definitions of what we have of the Prometheus operator's kinds, from its module.
copy_monitoring_crds() {
  local kind there=yes
  for kind in "${monitoring_kinds[@]}"; do [[ -f $(monitoring_crds)/monitoring.coreos.com_$kind.yaml ]] || there=; done
  [[ -z $there ]] || return 0
  say "fetching the definitions of the Prometheus operator $PROMETHEUS_OPERATOR"
  local work module=github.com/prometheus-operator/prometheus-operator source
  work=$(new_work)
  source=$(cd "$work" && go_build mod download -json "$module@$PROMETHEUS_OPERATOR" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  for kind in "${monitoring_kinds[@]}"; do
    cp "$source/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$work/" ||
      die "$module@$PROMETHEUS_OPERATOR could not be had from the Go module proxy"
  done
  chmod -R u+w "$work"
  rm -rf "$(monitoring_crds)"
  mv "$work" "$(monitoring_crds)"
}

go_build() { CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -buildvcs=false" go "$@"; }

# build_kubernetes FOLDER PROGRAM..: those that are missing. Kubernetes cannot be had by `go install`,
# for its go.mod replaces its own libraries by folders; each is also published as v0.MINOR.PATCH.
build_kubernetes() {
  local dir=$1 program missing=() work
  shift
  for program in "$@"; do [[ -x $dir/$program ]] || missing+=("$program"); done
  ((${#missing[@]})) || return 0
  say "building ${missing[*]} $KUBERNETES (some 6 minutes on two cores; once)"
  work=$(new_work)
  (
    cd "$work"
    go_build mod init cluster.local/programs 2>/dev/null
    source=$(go_build mod download -json "k8s.io/kubernetes@$KUBERNETES" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    go_build mod edit -require="k8s.io/kubernetes@$KUBERNETES"
    grep -oE '^\s+k8s.io/[a-z-]+ v0.0.0( |$)' "$source/go.mod" | awk '{print $1}' | sort -u |
      while read -r module; do go_build mod edit -replace="$module=$module@v0.${KUBERNETES#v1.}"; done
    {
      printf '//go:build tools\n\npackage programs\n\nimport (\n\t_ "go.etcd.io/etcd/server/v3"\n'
      printf '\t_ "k8s.io/kubernetes/cmd/%s"\n' "${kubernetes_programs[@]}"
      printf ')\n'
    } >programs.go
    go_build mod tidy >"$cache/programs.log" 2>&1 || { tail -n 20 "$cache/programs.log" >&2; exit 1; }
    v=k8s.io/component-base/version
    flags="-s -w -X $v.gitVersion=$KUBERNETES -X $v.gitMajor=1 -X $v.gitMinor=$kubernetes_minor -X k8s.io/client-go/pkg/version.gitVersion=$KUBERNETES"
    for program in "${missing[@]}"; do
      package=k8s.io/kubernetes/cmd/$program
      [[ $program != etcd ]] || { package=go.etcd.io/etcd/server/v3 flags="-s -w"; }
      go_build build -trimpath -ldflags "$flags" -o "$work/$program" "$package"
      mv "$work/$program" "$dir/$program"
    done
  ) || { rm -rf "$work"; die "Kubernetes $KUBERNETES could not be built: see the lines above"; }
  rm -rf "$work"
}

# install_module FOLDER NAME PACKAGE@VERSION [LINKER_FLAGS]
install_module() {
  local dir=$1 name=$2 package=$3 work
  [[ ! -x $dir/$name ]] || return 0
  mkdir -p "$dir"
  say "building $name ${package##*@}"
  work=$(new_work)
  GOBIN=$work go_build install -trimpath -ldflags "-s -w${4:-}" "$package" >"$cache/programs.log" 2>&1 ||
    { tail -n 20 "$cache/programs.log" >&2; rm -rf "$work"; die "$package could not be built: see above"; }
  mv "$work/$name" "$dir/$name"
  rm -rf "$work"
}
