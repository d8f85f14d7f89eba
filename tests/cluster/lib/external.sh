# shellcheck shell=bash
external_up() { die "another cluster is not supported yet"; }
