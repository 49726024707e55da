//! Commands to workers as they are stored: `docs/redis-keys.md`, `R:outlast:commands:<token>`.

use outlast_core::{Command, QueueName, TaskId};
use serde::{Deserialize, Serialize};

/// A command as it is stored. The names are stored: never change them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Cancel { queue: QueueName, id: TaskId },
    Quiet,
    Stop,
}

/// The text of a command. One that this version does not know has a text that nobody can read.
pub(crate) fn encode(command: &Command) -> String {
    let stored = match command {
        Command::Cancel { queue, id } => Stored::Cancel { queue: queue.clone(), id: id.clone() },
        Command::Quiet => Stored::Quiet,
        Command::Stop => Stored::Stop,
        _ => return String::new(),
    };
    serde_json::to_string(&stored).unwrap_or_default()
}

/// Reads a command; `None` if it was written by a newer program.
pub(crate) fn decode(text: &str) -> Option<Command> {
    Some(match serde_json::from_str(text).ok()? {
        Stored::Cancel { queue, id } => Command::Cancel { queue, id },
        Stored::Quiet => Command::Quiet,
        Stored::Stop => Command::Stop,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_texts_that_other_versions_read() {
        let cancel = Command::Cancel { queue: QueueName::default_queue(), id: TaskId::stored("a") };
        for (command, text) in [
            (cancel, r#"{"cancel":{"queue":"default","id":"a"}}"#),
            (Command::Quiet, r#""quiet""#),
            (Command::Stop, r#""stop""#),
        ] {
            assert_eq!(encode(&command), text);
            assert_eq!(decode(text), Some(command));
        }
        assert_eq!(decode(""), None);
        assert_eq!(decode(r#"{"dance":1}"#), None);
    }
}
