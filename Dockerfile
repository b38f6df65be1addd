# The worker without its development kit: one program, the certificates that it trusts, and an unprivileged user. It writes no
# files, so the root file system can be read-only.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY migrations migrations
COPY deploy/runbooks deploy/runbooks
RUN cargo build --locked --release --no-default-features --features otlp --bin dispatch

FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/target/release/dispatch /usr/local/bin/dispatch
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/dispatch"]
CMD ["worker"]
