# An emulator of one object store, to try the cache on; the profiles of docker-compose.yml build it. Not for production.
# The base is a Debian with Python >= 3.11; Go comes from it where a program has to be built, Node.js from pip.
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE}
WORKDIR /src
COPY . .
# As in the image of the cache: with a folder wheels/ in the context no package index is asked, and with a folder tools/
# (what scripts/test-deps has brought elsewhere, its cache folder) nothing is built.
RUN set -eu; \
    offline=''; \
    if ls wheels/*.whl >/dev/null 2>&1; then offline='--no-index --find-links /src/wheels'; fi; \
    pip='-m pip'; \
    if ! python3 -m pip --version >/dev/null 2>&1; then pip="$(ls /src/wheels/pip-*.whl)/pip"; fi; \
    python3 $pip install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
        $offline -c constraints.txt --target /opt/msrcache '.[all]' pytest cryptography
# s3, azure, gcs, swift or oss
ARG STORE
RUN set -eu; \
    HOME=$(mktemp -d); export HOME; \
    mkdir -p /opt/tools; \
    if [ -d tools ]; then cp -a tools/. /opt/tools; fi; \
    case $STORE in s3 | gcs) golang=yes ;; *) golang=no ;; esac; \
    if [ "$golang" = yes ] && [ -z "$(ls /opt/tools)" ] && ! command -v go >/dev/null; then \
        apt-get -qq update; apt-get -qq install -y --no-install-recommends golang-go >/dev/null; \
    fi; \
    GOTOOLCHAIN=auto MSRCACHE_TEST_TOOLS=/opt/tools scripts/test-deps --required "--for=$STORE"; \
    chmod -R a+rX /opt/tools; \
    rm -rf wheels tools "$HOME"; \
    echo 'emulator:x:65532:65532::/tmp:/bin/sh' >> /etc/passwd; \
    mkdir -p /shared; chown 65532:65532 /shared
ENV PYTHONPATH=/opt/msrcache:/src PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp \
    MSRCACHE_TEST_TOOLS=/opt/tools STORE=${STORE}
USER 65532:65532
VOLUME ["/shared"]
ENTRYPOINT ["/bin/sh", "-c", "exec python3 -m tests.stage.trystore \"$STORE\" /shared"]
