# The controller. The build context holds the programs `towline-controller` and `towline`, built for
# the base's libc. The certificates are for object stores: without any, no client can be made. The time
# zone data is for schedules.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG PACKAGES="ca-certificates tzdata"
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --chmod=0755 towline-controller towline /usr/local/bin/
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/towline-controller"]
