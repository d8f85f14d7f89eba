# shellcheck shell=bash disable=SC2034
# What is built from Go modules. Changing a version here builds it anew beside the old one.
readonly KUBERNETES=v1.35.4
readonly HELM=v3.22.0
readonly COREDNS=v1.13.1
readonly VERSITYGW=v1.8.0
# What checks the chart; of the Prometheus operator only its custom resource definitions.
readonly HELM_DOCS=v1.14.2
readonly KUBECONFORM=v0.8.0
readonly PROMETHEUS_OPERATOR=v0.85.0
# Installs the kubectl plugin from its archive.
readonly KREW=v0.4.3
# Stand-ins for clouds, from PyPI and npm: S3 and Google Cloud Storage, and Azure Blob Storage.
readonly MOTO=5.2.5
# The last that runs on Debian 12's Node 18.
readonly AZURITE=3.35.0
# The least Go that builds all of them: the `go` line of helm's go.mod is the highest.
readonly GO_LEAST=1.26.0
readonly CARGO_LEAST=1.90.0
