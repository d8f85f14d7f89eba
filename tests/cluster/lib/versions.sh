# shellcheck shell=bash disable=SC2034
# What is built from Go modules. Changing a version here builds it anew beside the old one.
readonly KUBERNETES=v1.35.4
readonly HELM=v3.22.0
readonly COREDNS=v1.13.1
readonly VERSITYGW=v1.8.0
# The least Go that builds all of them: the `go` line of helm's go.mod is the highest.
readonly GO_LEAST=1.26.0
readonly CARGO_LEAST=1.90.0
