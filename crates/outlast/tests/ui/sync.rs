//! A plain function where an async one is needed.

fn handler() {}

fn main() {
    let _ = |worker: outlast::Worker| worker.handle_type("t", handler);
}
