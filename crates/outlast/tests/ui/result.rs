//! A handler that returns something that says nothing about how it ended.

async fn handler() -> u32 {
    7
}

fn main() {
    let _ = |worker: outlast::Worker| worker.handle_type("t", handler);
}
