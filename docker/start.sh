#!/bin/sh
# Every way in which this cache and its predecessor are started ends here:
#   image                                  the embedded defaults and REGISTRY_* variables
#   image /config.yml                      the configuration alone (default entry point)
#   /start.sh /config.yml                  a stack file that names the entry point
#   bin/sh start.sh /config/config.yaml    a Deployment, relative to the working directory /
#   image check-config /config.yml         any other command of msrcache
set -eu

case ${1-} in
    '') exec msrcache serve ;;
    /* | ./* | *.yml | *.yaml) exec msrcache serve "$@" ;;
    *) exec msrcache "$@" ;;
esac
