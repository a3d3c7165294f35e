# syntax=docker/dockerfile:1
# docker build -t backend-signal . && docker run -it -p 1837:1837 backend-signal

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# The build of jemalloc needs make. The base image has a C compiler.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
COPY benches benches
COPY src src
COPY vendor vendor
COPY web web
# `benches/pgo` builds the daemon with a profile of it under load. The caches keep built dependencies for the next build. Builds for
# several platforms share `target`, so it is locked, and each build copies the daemon of its own platform.
RUN --mount=type=cache,target=/src/target,sharing=locked --mount=type=cache,target=/usr/local/cargo/registry \
    benches/pgo && cp "target/$(rustc --print host-tuple)/dist/backend-signal" /backend-signal

# Only the libraries that a Rust program needs: no shell, no package manager, no root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /backend-signal /backend-signal
COPY LICENSE-APACHE LICENSE-MIT /licenses/
ENV PORT=1837
EXPOSE 1837
# A number, because an orchestrator cannot see from a name that the user is not root.
USER 65532:65532
# Takes port, host and certificate from the same variables as the daemon; a daemon with flags instead needs the flags here too. It
# gives up after 3 s by itself, and says why.
HEALTHCHECK --interval=10s --timeout=4s --start-period=2s CMD ["/backend-signal", "healthcheck"]
# The exec form, so that SIGTERM reaches the daemon, which then drains. A shell would not pass the signal on.
ENTRYPOINT ["/backend-signal"]
