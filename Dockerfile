# The image of msrcache with the SDK of every store.
# The base needs Python >= 3.11, ca-certificates and /bin/sh; the same one builds and runs.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY . .
# With a folder wheels/ in the context no package index is asked: for networks without one. pip comes from the
# base, or, where the base has none, from its wheel, which can be executed as it is.
RUN set -eu; \
    offline=''; \
    if ls wheels/*.whl >/dev/null 2>&1; then offline='--no-index --find-links /src/wheels'; fi; \
    pip='-m pip'; \
    if ! python3 -m pip --version >/dev/null 2>&1; then pip="$(ls /src/wheels/pip-*.whl)/pip"; fi; \
    python3 $pip install --no-cache-dir --no-compile --disable-pip-version-check --root-user-action ignore \
        $offline -c constraints.txt --target /opt/msrcache '.[all]'; \
    find /opt/msrcache -name __pycache__ -type d -prune -exec rm -rf {} +

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="msrcache" \
      org.opencontainers.image.description="A highly available pull-through cache for OCI registries" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/msrcache /opt/msrcache
COPY docker/start.sh /start.sh
# Without the CA bundle every upstream behind TLS would be refused later, one by one: refuse the base now.
RUN set -eu; \
    test -s /etc/ssl/certs/ca-certificates.crt; \
    python3 -m compileall -q /opt/msrcache >/dev/null || true; \
    mkdir -p /var/lib/registry /var/lib/msrcache; \
    chown 65532:65532 /var/lib/registry /var/lib/msrcache
ENV PATH=/opt/msrcache/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/opt/msrcache PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /
VOLUME ["/var/lib/registry"]
# 5005 is for replicas, and open only with http.secret: publish it for other replicas only (`docker run -P` publishes all).
EXPOSE 5000 5005
STOPSIGNAL SIGTERM
ENTRYPOINT ["/start.sh"]
