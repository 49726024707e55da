//! Looking and acting: counts, pages, bulk actions, pausing.
//!
//! `cargo run -p outlast --example inspect`

use outlast::{Action, Client, PageRequest, QueueName, Selector, TaskRequest, TaskState};

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    let inspector = client.inspector();
    let queue = QueueName::new("mail")?;
    let requests =
        (0..2500).map(|n| TaskRequest::raw("mail:send", format!("user {n}")).queue("mail"));
    client.enqueue_all(requests.collect()).await?;

    // Some of them, by what is in the payload; in steps that hold up nobody.
    let mut select = Selector::state(TaskState::Pending);
    select.text = Some("user 24".to_owned());
    let acted = inspector.act_all(&queue, &Action::Archive, &select, |_| {}).await?;
    println!("{} archived", acted.changed);

    inspector.pause(&queue).await?;
    let stats = inspector.queue(&queue).await?;
    println!(
        "{} pending, {} archived, paused {:?}",
        stats.pending, stats.archived, stats.paused_since
    );

    // Page by page.
    let mut page = PageRequest::first(1000);
    let mut seen = 0;
    loop {
        let found = inspector.tasks(&queue, &Selector::state(TaskState::Pending), &page).await?;
        seen += found.items.len();
        let Some(next) = found.next else { break };
        page.cursor = Some(next);
    }
    println!("{seen} listed");
    Ok(())
}
