# One image with the programs; what it does is chosen by the command: headstart-server, headstart-client, headstart-peer,
# headstart-pki, headstart-lab.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      g++ cmake ninja-build libtorch-dev libboost1.81-dev libcereal-dev nlohmann-json3-dev libspdlog-dev \
      prometheus-cpp-dev libsqlitecpp-dev libssl-dev libcli11-dev zlib1g-dev libpng-dev libjpeg62-turbo-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cmake -S . -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DHEADSTART_TESTS=OFF \
 && cmake --build /build --target headstart-server headstart-client headstart-peer headstart-lab headstart-pki \
 && cmake --install /build --prefix /opt/headstart --strip

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
      libtorch1.13 libopenblas0-pthread libspdlog1.10 libprometheus-cpp-core1.0 libssl3 libsqlite3-0 zlib1g libpng16-16 libjpeg62-turbo \
      dataset-fashion-mnist \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 headstart && useradd --create-home --uid 10001 --gid 10001 headstart \
 && install -d -o headstart -g headstart /tls /revoked /requests /manifest /data /state /runs /pki
COPY --from=build /opt/headstart /usr/local
COPY server/deploy/*.sh client/deploy/*.sh /deploy/
USER headstart
WORKDIR /home/headstart
# Images in OCI's own format have no health check: podman keeps it with --format docker.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["/deploy/health.sh"]
CMD ["headstart-server", "--help"]
