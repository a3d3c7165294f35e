# syntax=docker/dockerfile:1
# docker build -t backend-signal . && docker run -it -p 1837:1837 backend-signal

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# The build of the allocator needs make. The base image has a C compiler.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
COPY benches benches
COPY src src
COPY vendor vendor
# Builds with a profile of the daemon under load. The caches keep the built dependencies for the next image. Builds for several
# platforms share the caches, so the cache is locked, and each build copies the daemon of its own platform.
RUN --mount=type=cache,target=/src/target,sharing=locked --mount=type=cache,target=/usr/local/cargo/registry \
    benches/pgo && cp "target/$(rustc --print host-tuple)/release/backend-signal" /backend-signal

# Only the C library: no shell, no package manager, no root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /backend-signal /backend-signal
COPY LICENSE-APACHE LICENSE-MIT /licenses/
ENV PORT=1837
EXPOSE 1837
# The number of the user `nonroot`, because an orchestrator can only tell from a number that the user is not root.
USER 65532:65532
# Takes port, host and certificate from the same variables as the daemon. It gives up after 3 s by itself, and says why.
HEALTHCHECK --interval=10s --timeout=4s --start-period=2s CMD ["/backend-signal", "healthcheck"]
# The exec form, so that SIGTERM reaches the daemon, which then drains. A shell would not pass the signal on.
ENTRYPOINT ["/backend-signal"]
