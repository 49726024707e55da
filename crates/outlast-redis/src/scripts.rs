//! The scripts: each the text of its file after the shared pieces it uses, known to the server by its hash.

use std::fmt;
use std::sync::LazyLock;

/// Whether a script has to work when the server is out of memory: what ends or moves work does, what
/// brings new work does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Refused when the server's memory is full.
    Needed,
    /// Runs all the same (on Redis 7 and later): it frees memory, or keeps work from being repeated.
    Optional,
    /// Runs all the same, and is not let write.
    Untouched,
}

/// One script.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pieces: &'static [&'static str],
    memory: Memory,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A script as one server has it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) text: String,
    pub(crate) hash: String,
}

impl Script {
    const fn new(name: &'static str, memory: Memory, pieces: &'static [&'static str]) -> Self {
        Self { name, pieces, memory }
    }

    fn load(&self, dialect: Dialect) -> Loaded {
        let mut text = String::new();
        text.push_str(match (dialect, self.memory) {
            (Dialect::Flags, Memory::Optional) => "#!lua flags=allow-oom\n",
            (Dialect::Flags, Memory::Untouched) => "#!lua flags=no-writes\n",
            (Dialect::Plain, _) | (Dialect::Flags, Memory::Needed) => "",
        });
        for piece in self.pieces {
            text.push_str(piece);
        }
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Loaded { text, hash }
    }
}

/// What a server understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Before Redis 7: no flags in scripts.
    Plain,
    /// Redis 7, Valkey: a first line with flags.
    Flags,
}

macro_rules! lua {
    ($($name:literal),* $(,)?) => { &[$(include_str!(concat!("lua/", $name, ".lua"))),*] };
}

/// The scripts by their places in [`ALL`].
macro_rules! scripts {
    ($($name:ident = $memory:ident [$($piece:literal),* $(,)?];)*) => {
        $(pub(crate) static $name: Script =
            Script::new(stringify!($name), Memory::$memory, lua![$($piece),*]);)*
        /// All of them: loaded with the first connection, so that no call has to.
        pub(crate) static ALL: &[&Script] = &[$(&$name),*];
    };
}

scripts! {
    ENQUEUE_ONE = Needed ["enqueue_one"];
    ENQUEUE_PLAIN = Needed ["session", "enqueue_plain"];
    ENQUEUE = Needed ["session", "put", "enqueue"];
    CLAIM_ONE = Optional ["claim_one"];
    CLAIM = Optional ["session", "record", "due", "size", "claim", "claim_due", "claim_line"];
    CLAIM_GROUPS = Optional ["session", "record", "due", "size", "claim", "claim_due", "claim_groups", "claim_line"];
    CLAIM_AGAIN = Optional ["record", "claim_again"];
    SETTLE_ONE = Optional ["active", "settle_one"];
    SETTLE_DONE = Optional ["session", "active", "count", "settle_done"];
    SETTLE = Optional ["session", "record", "put", "message", "active", "count", "lock", "trim", "settle"];
    EXTEND = Optional ["record", "extend"];
    SWEEP = Optional ["record", "due", "message", "active", "lock", "trim", "sweep"];
    WAIT_TELL = Optional ["command", "wait_tell"];
    QUARANTINE = Optional ["record", "active", "quarantine"];
    PEOPLE_TOKEN = Optional ["people_token"];
    PEOPLE_BEAT = Optional ["people_beat"];
    PEOPLE_TELL = Optional ["command", "people_tell"];
    PEOPLE_TICKS = Optional ["people_state", "people_ticks"];
    PEOPLE_SCHEDULES = Optional ["people_state", "people_schedules"];
    PEOPLE_ENDED = Optional ["people_ended"];
    PEOPLE_CONTROL = Optional ["people_state", "people_control"];
    PEOPLE_FORGET = Optional ["people_forget"];
    INSPECT_STATS = Optional ["record", "inspect_stats"];
    INSPECT_BYTES = Optional ["record", "inspect_bytes"];
    INSPECT_LINE = Optional ["inspect_line"];
    INSPECT_FIND = Optional ["inspect_find"];
    INSPECT_MEMBERS = Optional ["record", "inspect_members"];
    INSPECT_SIZES = Optional ["record", "inspect_sizes"];
    INSPECT_TASKS = Optional ["record", "inspect_place", "inspect_tasks"];
    ACT = Optional ["record", "inspect_place", "message", "lock", "trim", "command", "act_cut", "act"];
    CONTROL_EMPTY = Optional ["record", "message", "lock", "control_empty"];
    CONTROL_REMOVE = Optional ["record", "control_remove"];
    HEALTH = Needed ["health"];
    PERMISSIONS = Untouched ["permissions"];
    PORTER_TAKE = Optional ["record", "porter_row", "porter_take"];
    PORTER_PUT = Needed ["session", "porter_put"];
    PORTER_CONCLUDE = Optional ["record", "message", "lock", "porter_conclude"];
    PORTER_LOOK = Optional ["record", "inspect_place", "porter_row", "porter_look"];
    FSCK_MEMBERS = Optional ["record", "fsck_members"];
    FSCK_LOOK = Optional ["record", "fsck_look"];
    FSCK_TASK = Optional ["record", "message", "fsck_place", "fsck_put", "fsck_task"];
    FSCK_KEYS = Optional ["record", "fsck_keys"];
    FSCK_LOCKS = Optional ["message", "fsck_locks"];
}

static PLAIN: LazyLock<Vec<Loaded>> = LazyLock::new(|| load_all(Dialect::Plain));
static FLAGS: LazyLock<Vec<Loaded>> = LazyLock::new(|| load_all(Dialect::Flags));

fn load_all(dialect: Dialect) -> Vec<Loaded> {
    ALL.iter().map(|script| script.load(dialect)).collect()
}

/// All scripts as a server of this dialect gets them, in the order of [`ALL`].
pub(crate) fn loaded(dialect: Dialect) -> &'static [Loaded] {
    match dialect {
        Dialect::Plain => &PLAIN,
        Dialect::Flags => &FLAGS,
    }
}

impl Script {
    /// The script as a server of this dialect has it.
    pub(crate) fn on(&'static self, dialect: Dialect) -> &'static Loaded {
        let at = ALL.iter().position(|script| std::ptr::eq(*script, self)).unwrap_or(0);
        &loaded(dialect)[at]
    }

    /// True if the script may call this command.
    pub(crate) fn uses(&self, command: &str) -> bool {
        let quoted = format!("'{command}'");
        self.pieces.iter().any(|piece| piece.contains(&quoted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words in capitals that are no commands.
    const WORDS: [&str; 7] =
        ["BYSCORE", "COUNT", "LIMIT", "MAXLEN", "RIGHT", "WITHSCORES", "WRONGTYPE"];

    /// Of a command that it does not list, nobody would know that it is refused.
    #[test]
    fn permissions_are_asked_for_every_command_of_every_script() {
        let mut commands = 0;
        for script in ALL.iter().filter(|script| script.name != PERMISSIONS.name) {
            for text in script.pieces {
                let words = text.split('\'').skip(1).step_by(2);
                let is_name = |word: &&str| {
                    word.len() >= 3 && word.bytes().all(|byte| byte.is_ascii_uppercase())
                };
                for word in words.filter(is_name).filter(|word| !WORDS.contains(word)) {
                    assert!(PERMISSIONS.uses(word), "{word} of {} is not asked for", script.name);
                    commands += 1;
                }
            }
        }
        assert!(commands > 100, "{commands} commands were found");
    }
}
