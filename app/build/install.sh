#!/bin/sh
# Installs the packages of one part of the image: `runtime` (what serves), `tools` (what trains and tests) or `pypi`.
# Debian has all of the first two; on a Red Hat base, Python comes from dnf and the rest from pip (requirements-*.txt).
# `pypi` comes from pip on both, into a folder of its own, so that the stage that has pip is not the one that ships.
set -eu

part=$1
here=$(dirname "$0")

debian() {
    export DEBIAN_FRONTEND=noninteractive
    case $part in
        runtime)
            cp "$here/dpkg-excludes" /etc/dpkg/dpkg.cfg.d/genai-inference
            set -- python3 python3-torch libopenblas0-openmp python3-safetensors python3-fastapi python3-uvicorn python3-uvloop \
                python3-pydantic-settings python3-prometheus-client python3-pil python3-yaml \
                python3-redis python3-asyncpg python3-jwt python3-cryptography python3-requests python3-boto3 ca-certificates
            ;;
        tools)
            set -- python3-sklearn python3-pytest python3-pytest-timeout python3-pytest-xdist python3-httpx python3-hypothesis redis-server postgresql
            ;;
        pypi)
            set -- python3-pip
            ;;
    esac
    apt-get update -q
    apt-get install -q -y --no-install-recommends "$@"
    apt-get clean
    # Tests of Python packages that torch may use (40 MB). dpkg cannot leave them out: it compiles what a package lists.
    for package in sympy networkx fsspec; do
        [ -d "/usr/lib/python3/dist-packages/$package" ] || continue
        find "/usr/lib/python3/dist-packages/$package" -type d -name tests -prune -exec rm -rf {} +
    done
    rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/cache/debconf/*-old
    ln -sf /usr/bin/python3 /usr/local/bin/python
}

redhat() {
    if [ "$part" != tools ]; then
        dnf install -y --nodocs --setopt=install_weak_deps=0 python3.12 python3.12-pip
        dnf clean all
        ln -sf /usr/bin/python3.12 /usr/local/bin/python
    fi
    [ "$part" = pypi ] || python -m pip install --no-cache-dir --disable-pip-version-check -r "$here/requirements-$part.txt"
}

# From the wheels that lie beside this file, if there are any: then the build needs no index.
pypi() {
    set -- --only-binary :all: --no-deps --target /usr/local/lib/genai-inference -r "$here/requirements-pypi.txt"
    if [ -n "$(find "$here/wheels" -name '*.whl')" ]; then
        set -- --no-index --find-links "$here/wheels" "$@"
    fi
    python -m pip install --no-cache-dir --disable-pip-version-check "$@"
}

case $part in runtime | tools | pypi) ;; *) echo "install.sh: no part $part" >&2; exit 2 ;; esac
if command -v apt-get >/dev/null; then debian; else redhat; fi
if [ "$part" = pypi ]; then pypi; fi
