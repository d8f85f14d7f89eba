# shellcheck shell=bash
# Container images, built by buildah from ordinary Dockerfiles. Each has a key made of all its inputs:
# the Dockerfile, the files it copies, the exact versions of its Debian packages and of its base. It is
# built when no image with that key is cached, and given to the cluster when the cluster has another.

readonly all_images=(pause coredns versitygw mariadb mysql controller agent-mariadb agent-mysql fault-proxy)
readonly images=$cache/images

# image_inputs NAME: sets what the image is made of. `files` are copied into an empty build context; with
# a `target`, which is a stage of Towline's own Dockerfile, they stand in for what that would compile.
image_inputs() {
  suite='' packages_wanted='' files=() target='' series=''
  local bin own=$here/images
  bin=$(programs_dir)
  case $1 in
    pause) tag=pause:1 dockerfile=$own/pause/Dockerfile files=("$own/pause/pause.c") ;;
    coredns) tag=coredns:1 dockerfile=$own/coredns.Dockerfile files=("$bin/coredns") ;;
    versitygw) tag=versitygw:dev dockerfile=$own/versitygw.Dockerfile files=("$bin/versitygw") ;;
    mariadb) tag=mariadb:10.11 dockerfile=$own/mariadb/Dockerfile files=("$own/mariadb/entrypoint") suite=bookworm packages_wanted="mariadb-server-core mariadb-client" ;;
    mysql) tag=mysql:9 dockerfile=$own/mysql/Dockerfile files=("$own/mysql/entrypoint") suite=sid packages_wanted="mysql-server-core mysql-client" ;;
    controller) tag=towline-controller:dev target=controller files=("$(binary towline-controller)" "$(binary towline)") suite=bookworm packages_wanted="ca-certificates tzdata" ;;
    agent-mariadb) tag=towline-agent-mariadb:dev series=mariadb-10.11 ;;
    agent-mysql) tag=towline-agent-mysql:dev series=mysql-9 ;;
    fault-proxy) tag=fault-proxy:dev dockerfile=$own/fault-proxy.Dockerfile files=("$(binary fault-proxy)") suite=bookworm ;;
    *) die "no image is called '$1': there are ${all_images[*]}" ;;
  esac
  if [[ -n $series ]]; then
    target=agent files=("$(binary towline-agent)" "$(binary towline)")
    read -r suite packages_wanted < <(series_of "$series") || return 1
  fi
  [[ -z $target ]] || dockerfile=$repo/deploy/docker/Dockerfile
}

# series_of NAME: the Debian suite and the packages of an agent's image.
series_of() {
  local found
  found=$(awk -v name="$1" '$1 == name {suite = $2; sub(/.*debian:/, "", suite); sub(/-slim$/, "", suite); $1 = $2 = ""; print suite, $0}' "$repo/deploy/docker/series")
  [[ -n $found ]] || die "deploy/docker/series does not have $1"
  printf '%s\n' "$found"
}

# make_images [NAME..]: build what changed, then import it (or push it, for another cluster).
make_images() {
  local name wanted=("$@")
  ((${#wanted[@]})) || wanted=("${all_images[@]}")
  mkdir -p "$images"
  have buildah || install_packages
  if ! external; then [[ -x $(programs_dir)/versitygw ]] || build_programs; fi
  build_binaries "${wanted[@]}"
  for name in "${wanted[@]}"; do make_image "$name" || return 1; done
  if external; then push_images; else import_images; fi
  prune_layers
}

# prune_layers: each build leaves the layers of its steps, for the next one to use. When they are many, they go.
prune_layers() {
  local kilobytes
  kilobytes=$(du -sk "$cache/containers" 2>/dev/null | cut -f1)
  ((${kilobytes:-0} < 8 * 1024 * 1024)) || buildah_here rmi --prune >/dev/null 2>&1 || true
}

# binary NAME: where cargo puts it.
binary() {
  local profile=${PROFILE:-dev}
  [[ $profile != dev ]] || profile=debug
  printf '%s/%s/%s' "${CARGO_TARGET_DIR:-$repo/target}" "$profile" "$1"
}

build_binaries() {
  case " $* " in
    *" controller "* | *" agent-"* | *" fault-proxy "*) ;;
    *) return 0 ;;
  esac
  say "building Towline (cargo, profile ${PROFILE:-dev})"
  (cd "$repo" && cargo build --quiet --locked --profile "${PROFILE:-dev}" --bins) || die "Towline could not be built: see above"
}

make_image() {
  local name=$1 suite packages_wanted files tag dockerfile target series work key base=scratch pinned=''
  image_inputs "$name" || return 1
  work=$(new_work)
  prepare_context "$name" "$work/context"
  if [[ -n $suite ]]; then
    refresh_suite "$suite"
    base=$(base_image "$suite") || return 1
    # shellcheck disable=SC2086
    [[ -z $packages_wanted ]] || pinned=$(exact "$suite" $packages_wanted) || return 1
  fi
  key=$( (printf '%s\n' "$tag" "$base" "$pinned" && cat "$dockerfile" ${target:+"$repo/deploy/docker/assemble" "$repo/.dockerignore"} && cd "$work/context" && sha256sum -- *) | sha256sum | cut -c1-16)
  if [[ ! -f $images/$name-$key.tar ]]; then
    say "building image $tag ${pinned:+with $pinned}"
    [[ $base == scratch ]] || ensure_base "$suite" "$base"
    build_image "$work" || { rm -rf "$work"; die "image $tag could not be built: see above"; }
    # The last three are kept: two checkouts may take turns.
    find "$images" -name "$name-????????????????.tar" -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- | xargs -r rm -f
  fi
  printf '%s %s\n' "$key" "$tag" >"$images/$name.current"
  rm -rf "$work"
}

# prepare_context NAME FOLDER: the files, without debug information, which would be most of an image.
prepare_context() {
  local file
  mkdir -p "$2"
  for file in "${files[@]}"; do
    [[ -f $file ]] || die "image $1 needs $file, which is not there"
    cp "$file" "$2/"
    case $file in "$repo"/target/* | "${CARGO_TARGET_DIR:-$repo/target}"/*) strip --strip-debug "$2/${file##*/}" ;; esac
  done
  [[ $1 != pause ]] || gcc -static -O2 -o "$2/pause" "$2/pause.c"
}

# build_image WORK: uses make_image's variables.
build_image() {
  local settings=$1/settings mounts=() what=("$1/context")
  if [[ -n $suite ]]; then
    build_settings "$suite" "$settings"
    mounts=(--volume "$settings:/run/build:ro" --volume "$settings/sources.list:/etc/apt/sources.list:ro" --volume "$settings/apt.conf:/etc/apt/apt.conf.d/99build:ro")
  fi
  # The context of Towline's own is the checkout, as everywhere.
  [[ -z $target ]] || what=(--target "$target" --build-context "programs=$1/context" ${series:+--build-arg "SERIES=$series"} "$repo")
  buildah_here bud -q --layers --pull=false --network host "${mounts[@]}" \
    --build-arg BASE="$base" --build-arg PACKAGES="$pinned" \
    -t "localhost/$tag" -f "$dockerfile" "${what[@]}" >"$images/$name.log" 2>&1 || { tail -n 30 "$images/$name.log" >&2; return 1; }
  buildah_here push -q "localhost/$tag" "docker-archive:$1/image.tar:localhost/$tag" || return 1
  mv "$1/image.tar" "$images/$name-$key.tar"
}

# buildah with a storage of our own; on the kernel's overlay where that works, else on plain copies.
buildah_here() {
  local storage=$cache/containers driver
  mkdir -p "$storage"
  if [[ ! -s $storage/driver ]]; then
    if overlay_works; then printf overlay >"$storage/driver"; else printf vfs >"$storage/driver"; fi
  fi
  driver=$(<"$storage/driver")
  BUILDAH_ISOLATION=chroot STORAGE_DRIVER=$driver buildah --root "$storage/$driver" --runroot "$storage/run" "$@"
}

overlay_works() {
  local try=$cache/containers/try rc=0
  mkdir -p "$try"/{lower,upper,work,merged}
  mount -t overlay -o "lowerdir=$try/lower,upperdir=$try/upper,workdir=$try/work" overlay "$try/merged" 2>/dev/null || rc=1
  ((rc)) || umount "$try/merged"
  rm -rf "$try"
  return "$rc"
}

# base_image SUITE: its name, which holds the versions of what every process in it uses.
base_image() {
  local versions
  versions=$(exact "$1" base-files libc6 apt dpkg) || return 1
  printf 'localhost/towline-base:%s-%s' "$1" "$(sha256sum <<<"$versions" | cut -c1-12)"
}

# ensure_base SUITE IMAGE: a minimal system from Debian's own archive.
ensure_base() {
  local suite=$1 image=$2 root container
  ! buildah_here inspect --type image "$image" >/dev/null 2>&1 || return 0
  say "building the base image of Debian $suite"
  root=$(new_work)
  debootstrap --variant=minbase "$suite" "$root/root" "$(debian_mirror)" >"$images/base-$suite.log" 2>&1 ||
    { tail -n 20 "$images/base-$suite.log" >&2; rm -rf "$root"; die "debootstrap of Debian $suite failed: see above"; }
  rm -rf "$root"/root/var/cache/apt/archives/*.deb "$root"/root/var/lib/apt/lists/* "$root"/root/var/log/*
  : >"$root/root/etc/apt/sources.list" # every build brings its own
  container=$(buildah_here from scratch)
  buildah_here add -q "$container" "$root/root" / >/dev/null
  buildah_here config --cmd /bin/bash "$container"
  buildah_here commit -q --rm "$container" "$image" >/dev/null
  rm -rf "$root"
}

image_prefix() { if external; then external_image_prefix; else printf 'localhost/'; fi; }

# import_images: gives a running local cluster what it does not have yet.
import_images() {
  local name key tag
  running containerd || return 0
  mkdir -p "$state/imported"
  for name in "${all_images[@]}"; do
    { read -r key tag <"$images/$name.current"; } 2>/dev/null || continue
    [[ -f $images/$name-$key.tar && $key != "$(cat "$state/imported/$name" 2>/dev/null)" ]] || continue
    # containerd may collect a layer of the image's predecessor between two steps of an import.
    ctr_cluster images import "$images/$name-$key.tar" >/dev/null 2>&1 || ctr_cluster images import "$images/$name-$key.tar" >/dev/null ||
      die "image $tag could not be imported into containerd"
    printf '%s' "$key" >"$state/imported/$name"
  done
}
