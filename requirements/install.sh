#!/usr/bin/env bash
# install.sh cpu|cuda|dev: installs one lock file into .venv, as locked. Run by make; safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
what=$1
python=${PYTHON:-python3}
step() { printf '\n==> %s\n' "$*"; }

if [ ! -x .venv/bin/python ]; then
    step "Creating .venv"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "GRM Server needs Python 3.11 or newer; $python is older. Choose another: make PYTHON=python3.12 ..." >&2
        exit 1
    }
    "$python" -m venv .venv || {
        echo "Could not create .venv. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

if [ "$what" = cpu ]; then
    torch=torch==2.13.0+cpu
    step "Installing $torch (about 190 MB)"
    # Where pip's own configuration knows the CPU build, that is enough. Elsewhere it fails at once, and PyTorch's CPU
    # index is asked for this one package: as an extra index it would be asked for every other package too.
    pip install --no-deps --quiet "$torch" 2>/dev/null ||
        pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"
fi
step "Installing requirements/$what.txt"
pip install --no-deps --require-hashes -r "requirements/$what.txt"
if [ "$what" != dev ]; then
    step "Installing grm-server"
    pip install --no-deps --no-build-isolation --quiet --editable .
fi
