#!/usr/bin/env bash
# Writes the lock files from pyproject.toml: `make lock`. Needs the network and uv (`pip install uv`).
set -euo pipefail
cd "$(dirname "$0")/.."
# grm-client is installed from clients/ (install.sh) and has no hash to lock; its dependencies are locked.
lock() {
    uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet \
        --no-emit-package grm-client "$@"
}
lock pyproject.toml requirements/torch.in --extra cpu --excludes requirements/excludes-cpu.txt -o requirements/cpu.txt
lock pyproject.toml --extra cuda --excludes requirements/excludes-cuda.txt -o requirements/cuda.txt
for engine in cpu cuda; do
    lock pyproject.toml --extra dev -c "requirements/$engine.txt" -o "requirements/dev-$engine.txt"
done
