# syntax=docker/dockerfile:1
# docker build -t backend-signal . && docker run -it -p 1837:1837 backend-signal

FROM rust:1-slim-bookworm AS build
WORKDIR /src
# For the allocator; the C compiler is there already.
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
# The dependencies alone first, so that a change of the code does not build them again.
COPY Cargo.toml Cargo.lock build.rs ./
COPY .cargo .cargo
COPY proto proto
RUN mkdir -p src benches/wire \
    && echo 'fn main() {}' | tee src/main.rs benches/hub.rs benches/wire/main.rs > src/lib.rs \
    && cargo build --release --locked \
    && rm -r src
COPY src src
# Newer than what was built of the stand-ins.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked

# The C library and nothing else: no shell, no package manager, not root.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/backend-signal /backend-signal
COPY LICENSE-APACHE LICENSE-MIT /licenses/
ENV PORT=1837
EXPOSE 1837
# The same user by its number, so that an orchestrator can see that it is not root.
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=4s --start-period=2s CMD ["/backend-signal", "healthcheck"]
# In the exec form, so that the daemon gets SIGTERM itself and drains.
ENTRYPOINT ["/backend-signal"]
