# shellcheck shell=bash
# A real S3 server on the host, reached over the network by pods and tests alike.

readonly s3_port=7070

start_s3() {
  write_s3_credentials
  mkdir -p "$state/s3/data" "$state/s3/accounts"
  # With accounts of its own it answers wrong credentials as S3 does, not with 404.
  ROOT_ACCESS_KEY_ID=$(s3_access_key) ROOT_SECRET_ACCESS_KEY=$(s3_secret_key) \
    start versitygw "$(programs_dir)/versitygw" --port "$node_ip:$s3_port" --iam-dir "$state/s3/accounts" posix "$state/s3/data"
  wait_for 30 "the S3 server" s3_ready || { log_tail versitygw; return 1; }
}

# Any answer is an answer: without a signature it is a 403.
s3_ready() { curl -s -o /dev/null --max-time 2 "$(s3_endpoint_here)/"; }

# Fixed once for each cluster, so that a restart keeps what tests were told.
write_s3_credentials() {
  mkdir -p "$state/s3"
  [[ -s $state/s3/access-key && -s $state/s3/secret-key ]] && return
  (
    umask 077
    printf 'towline-test' >"$state/s3/access-key"
    openssl rand -hex 20 | tr -d '\n' >"$state/s3/secret-key"
  )
}

s3_access_key() { cat "$state/s3/access-key"; }
s3_secret_key() { cat "$state/s3/secret-key"; }
