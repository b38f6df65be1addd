# The worker without its development kit, in an image that has no shell, runs as nobody special and writes nothing.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
RUN cargo build --locked --release --no-default-features --bin dispatch

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/dispatch /usr/local/bin/dispatch
USER nonroot
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/dispatch"]
CMD ["worker"]
