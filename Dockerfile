# syntax=docker/dockerfile:1
# Troop in a container: docker build -t troop .
# It runs as user 10001, keeps everything under /var/lib/troop, and takes its settings from TROOP_* (or KONG_*) variables.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /troop
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/troop/target \
    cargo build --release --locked --bin troop \
    && install -D -m 755 target/release/troop /out/troop

FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 troop \
    && useradd --system --uid 10001 --gid troop --home-dir /var/lib/troop --shell /usr/sbin/nologin troop \
    && install -d -m 700 -o troop -g troop /var/lib/troop
COPY --from=build /out/troop /usr/local/bin/troop
COPY --chmod=755 deploy/join.sh /usr/local/bin/troop-join
# The status listener is for probes and Prometheus, who come from outside of the container. The Admin API stays on 127.0.0.1:
# it has no authentication.
ENV TROOP_PREFIX=/var/lib/troop \
    TROOP_STATUS_LISTEN=0.0.0.0:8100
USER 10001:10001
WORKDIR /var/lib/troop
VOLUME /var/lib/troop
# Proxy, proxy with TLS, Admin API, nodes of the cluster, status.
EXPOSE 8000 8443 8001 8005 8100
# SIGTERM and SIGQUIT are the same: requests under way are finished. It starts no processes, so that none is there to be reaped.
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["troop", "health"]
CMD ["troop", "start"]
