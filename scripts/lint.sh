#!/usr/bin/env bash
# Formatting, lints, documentation and scripts, with warnings as errors.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

need cargo cc

say "formatting"
cargo fmt --all --check
say "lints"
cargo clippy --locked --workspace --all-targets -- -D warnings
# The crate is a program, and its documentation for who works on it: private
# items are documented, and links to them are fine.
say "documentation"
RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --lib --document-private-items
if command -v shellcheck >/dev/null; then
    say "scripts"
    shellcheck --shell=bash scripts/*.sh .ci/run
else
    say "scripts: not checked, since shellcheck is not installed"
fi
