#!/usr/bin/env bash
# trainer.sh NAME: builds .venv-trainers/NAME for the contract tests of one trainer: the listed packages, and grm-client
# as a trainer's environment has it, without the server. Run by make.
# Dependencies are not resolved: trainers name packages that need a GPU to install and that these tests do not use.
set -euo pipefail
cd "$(dirname "$0")/.."
list=requirements/trainers/$1.txt
venv=.venv-trainers/$1
printf '\n==> Building %s\n' "$venv"
"${PYTHON:-python3}" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
torch=$(grep '^torch==' "$list" || true)
if [ -n "$torch" ]; then
    # As in install.sh: PyTorch's CPU index is used for this one package.
    pip install --no-deps "$torch" 2>/dev/null ||
        pip install --no-deps --index-url https://download.pytorch.org/whl/cpu "$torch"
fi
pip install --quiet --no-deps --require-hashes --requirement <(grep -v '^torch==' "$list")
pip install --quiet --no-deps --editable ./clients
