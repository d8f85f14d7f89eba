# The agent beside a database, with the tools of one server family:
#   MariaDB  BASE=debian:bookworm-slim  PACKAGES="mariadb-client mariadb-backup"   (the default)
#   MySQL 9  BASE=debian:sid-slim       PACKAGES="mysql-client"
# The build context holds the programs `towline-agent` and `towline`, built for the base's libc.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG PACKAGES="mariadb-client mariadb-backup"
# Physical backups read the data directory as the server's own user: run the pod with its uid
# (runAsUser); 999 is what the images of MariaDB and MySQL use.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
COPY --chmod=0755 towline-agent towline /usr/local/bin/
USER 999:999
EXPOSE 8474 8475
ENTRYPOINT ["/usr/local/bin/towline-agent"]
