# shellcheck shell=bash disable=SC2034
# What the scripts beside it share with those of the cluster: the cache, the tools, the images.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$repo/tests/cluster
readonly repo here
# shellcheck source=../cluster/lib/common.sh
. "$here/lib/common.sh"
. "$here/lib/versions.sh"
. "$here/lib/process.sh"
. "$here/lib/check.sh"
. "$here/lib/deps.sh"
. "$here/lib/apt.sh"
. "$here/lib/programs.sh"
. "$here/lib/tools.sh"
. "$here/lib/images.sh"
