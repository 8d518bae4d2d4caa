#!/usr/bin/env bash
# trainer.sh NAME: builds .venv-trainers/NAME for the contract tests of one trainer, as listed. Run by make.
# Nothing is resolved: trainers name packages that need a GPU to install, and whose code these tests do not reach.
set -euo pipefail
cd "$(dirname "$0")/.."
list=requirements/trainers/$1.txt
venv=.venv-trainers/$1
printf '\n==> Building %s\n' "$venv"
"${PYTHON:-python3}" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
torch=$(grep '^torch==' "$list" || true)
if [ -n "$torch" ]; then
    # As in install.sh: PyTorch's CPU index is asked for this one package.
    pip install --no-deps "$torch" 2>/dev/null ||
        pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"
fi
pip install --quiet --no-deps --requirement "$list"
