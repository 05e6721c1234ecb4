# Reelyard on CPUs. `docker build -t reelyard .` then
# `docker run --rm -p 127.0.0.1:8080:8080 -v reelyard:/data reelyard`
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY scripts/setup scripts/setup
RUN scripts/setup build
COPY . .
RUN scripts/setup player && cargo build --release --locked -p reelyard -p reelyard-media

FROM debian:bookworm-slim
WORKDIR /opt/reelyard
COPY scripts/setup scripts/setup
RUN scripts/setup runtime && rm -rf .tools /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --create-home reelyard
COPY --from=build /src/target/release/reelyard /src/target/release/reelyard-media /usr/local/bin/
USER 10001
VOLUME /data
EXPOSE 8080
# On another port: -e REELYARD_SERVER=http://127.0.0.1:PORT
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["reelyard", "healthcheck"]
ENTRYPOINT ["reelyard"]
CMD ["serve", "--data-dir", "/data", "--listen", "0.0.0.0:8080"]
