ARG BASE=debian:bookworm-slim
FROM ${BASE}
COPY fault-proxy /usr/local/bin/fault-proxy
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/fault-proxy"]
