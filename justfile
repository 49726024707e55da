# The verbs of this repository, the same that .ci/run goes through. `just` alone lists them.

_list:
    @just --list --unsorted

# Put every file into its form.
fmt:
    cargo fmt --all

# Form, clippy, dependencies.
lint:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
    scripts/install-tools
    "${CARGO_TARGET_DIR:-target}/tools/bin/cargo-deny" --workspace --all-features --locked check bans licenses sources

# All tests, or those whose name contains the given text.
test *name:
    scripts/test {{ name }}

# The API documentation, without a warning.
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --workspace --exclude outlast-cli --all-features

# The whole system, measured: every figure with its yardstick.
bench *options:
    cargo run --locked --release -p outlast-cli -- bench {{ options }}

# Everything that a change must pass.
ci:
    .ci/run
