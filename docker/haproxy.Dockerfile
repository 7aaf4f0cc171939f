# The load balancer of docker-compose.yml. The base is a Debian; one that has HAProxy already is taken as it is.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE}
RUN set -eu; \
    if ! test -x /usr/sbin/haproxy; then \
        apt-get -qq update; apt-get -qq install -y --no-install-recommends haproxy >/dev/null; \
        rm -rf /var/lib/apt/lists/*; \
    fi
COPY docker/haproxy.cfg /etc/haproxy/haproxy.cfg
USER 65532:65532
EXPOSE 5000
# Bodies under way end first; then it leaves by itself.
STOPSIGNAL SIGUSR1
ENTRYPOINT ["/usr/sbin/haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]
