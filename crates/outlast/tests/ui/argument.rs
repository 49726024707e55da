//! A handler that takes something no run can give.

async fn handler(_number: u32) {}

fn main() {
    let _ = |worker: outlast::Worker| worker.handle_type("t", handler);
}
