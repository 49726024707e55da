//! Names: queues, task types, task ids, groups, schedules. Parsed at the door, so that a name that
//! exists is valid.
//!
//! A name is not blank, at most [`NAME_BYTES_MAX`] bytes of UTF-8, and has no control characters. A
//! queue name also has no braces: asynq puts it between braces as a cluster hash tag (contract §1.6).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::NAME_BYTES_MAX;

/// Why a text is not a name. The message names the thing, the value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or nothing but white space.
    #[error("{what} {value:?} is blank: give it at least one visible character")]
    Blank {
        /// What was being named, such as `queue name`.
        what: &'static str,
        /// The text given.
        value: String,
    },
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("{what} {value:?}… has {bytes} bytes: at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// The first characters of the text given.
        value: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// Holds a character that a name cannot hold.
    #[error("{what} {value:?} holds {found:?}: {why}")]
    Character {
        /// What was being named.
        what: &'static str,
        /// The text given.
        value: String,
        /// The first offending character.
        found: char,
        /// Why it is not allowed.
        why: &'static str,
    },
}

fn check(what: &'static str, text: &str, braces: Braces) -> Result<(), NameError> {
    if text.len() > NAME_BYTES_MAX {
        let value = text.chars().take(32).collect();
        return Err(NameError::TooLong { what, value, bytes: text.len() });
    }
    if text.trim().is_empty() {
        return Err(NameError::Blank { what, value: text.to_owned() });
    }
    let bad = |found, why| NameError::Character { what, value: text.to_owned(), found, why };
    if let Some(found) = text.chars().find(|c| c.is_control()) {
        return Err(bad(found, "control characters are not allowed"));
    }
    match (braces, text.chars().find(|c| matches!(c, '{' | '}'))) {
        (Braces::Refused, Some(found)) => {
            Err(bad(found, "braces are not allowed, Redis Cluster reads them as a hash tag"))
        }
        _ => Ok(()),
    }
}

#[derive(Clone, Copy)]
enum Braces {
    Allowed,
    Refused,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $braces:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// [`NameError`] if the text is blank, too long or holds a character that is not allowed.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                check($what, text, $braces)?;
                Ok(Self(text.into()))
            }

            /// A name that some program has already stored: taken as it is, so that what others wrote
            /// can still be shown, run and removed.
            #[must_use]
            pub fn stored(text: &str) -> Self {
                Self(text.into())
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;
            fn try_from(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
    };
}

name!(
    /// The name of a queue.
    ///
    /// ```
    /// use outlast_core::QueueName;
    /// assert_eq!(QueueName::new("mail")?.as_str(), "mail");
    /// assert!(QueueName::new("  ").is_err());
    /// assert!(QueueName::new("{mail}").is_err());
    /// # Ok::<(), outlast_core::NameError>(())
    /// ```
    QueueName,
    "queue name",
    Braces::Refused
);
name!(
    /// What kind of work a task is, such as `email:welcome`. Handlers are bound to types.
    TaskType,
    "task type",
    Braces::Allowed
);
name!(
    /// The id of a task, unique in its queue.
    TaskId,
    "task id",
    Braces::Allowed
);
name!(
    /// The group in which a task waits to be aggregated with others.
    GroupName,
    "group name",
    Braces::Allowed
);
name!(
    /// The name of a schedule: the first half of the ids of its tasks.
    ScheduleName,
    "schedule name",
    Braces::Allowed
);

impl QueueName {
    /// The queue of whoever names none: `default`, as in asynq.
    #[must_use]
    pub fn default_queue() -> Self {
        Self("default".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_long_and_control_names_are_refused_with_the_value() {
        let cases = [
            ("", "queue name \"\" is blank: give it at least one visible character"),
            (" \t", "queue name \" \\t\" is blank: give it at least one visible character"),
            ("a\nb", "queue name \"a\\nb\" holds '\\n': control characters are not allowed"),
            (
                "a{b",
                "queue name \"a{b\" holds '{': braces are not allowed, Redis Cluster reads them as a hash tag",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(QueueName::new(text).expect_err(text).to_string(), message);
        }
        let error = TaskId::new("x".repeat(256)).expect_err("256 bytes are too many");
        assert!(error.to_string().contains("has 256 bytes: at most 255 are allowed"), "{error}");
    }

    #[test]
    fn a_name_of_the_greatest_length_is_allowed_and_case_is_kept() {
        assert!(TaskId::new("x".repeat(255)).is_ok());
        assert_ne!(QueueName::new("Mail").ok(), QueueName::new("mail").ok());
    }
}
