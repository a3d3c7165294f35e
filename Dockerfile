# syntax=docker/dockerfile:1
# docker build -t backend-signal . && docker run -it -p 1837:1837 backend-signal

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# For the allocator; the C compiler is there already.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
COPY benches benches
COPY src src
COPY vendor vendor
# By its own profile under load. The caches keep what was built of the dependencies for the next image; builds for several
# platforms share them, so they take turns, and each takes its own daemon.
RUN --mount=type=cache,target=/src/target,sharing=locked --mount=type=cache,target=/usr/local/cargo/registry \
    benches/pgo && cp "target/$(rustc --print host-tuple)/release/backend-signal" /backend-signal

# The C library and nothing else: no shell, no package manager, not root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /backend-signal /backend-signal
COPY LICENSE-APACHE LICENSE-MIT /licenses/
ENV PORT=1837
EXPOSE 1837
# The same user by its number, so that an orchestrator can see that it is not root.
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=4s --start-period=2s CMD ["/backend-signal", "healthcheck"]
# In the exec form, so that the daemon gets SIGTERM itself and drains.
ENTRYPOINT ["/backend-signal"]
