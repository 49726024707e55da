//! What the server and the network say, by what it means for the caller (design §4). The only file that
//! knows their texts.

use std::error::Error as StdError;

use outlast_core::{BrokerError, Kind};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Whether a request had been sent when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The connection was being made.
    Connecting,
    /// The request was on its way: it may have been carried out.
    Sent,
}

/// The error as callers see it. `shown` is the server's URL without its password.
pub(crate) fn classify(error: RedisError, shown: &str, phase: Phase) -> BrokerError {
    let (kind, remedy) = judge(&error, phase);
    let what = match remedy {
        "" => shown.to_owned(),
        remedy => format!("{shown} ({remedy})"),
    };
    let concerns_its_queue = is_about_keys(kind, &error);
    let failed = BrokerError::new(kind, what).with_source(without_arguments(error));
    if concerns_its_queue { failed.of_its_queue() } else { failed }
}

/// The error as it may be logged: a server that does not know a command repeats it with its arguments, and they may be a password
/// or a payload.
fn without_arguments(error: RedisError) -> RedisError {
    let text = error.to_string();
    let Some((before, repeated)) = text.split_once(UNKNOWN_COMMAND) else { return error };
    let mut words = repeated.split_whitespace().map(|word| word.trim_matches([',', ':']));
    let name = words.find(|word| !word.is_empty()).unwrap_or_default();
    let said = format!("{before}{UNKNOWN_COMMAND} {name}");
    RedisError::from((error.kind(), "not understood", said))
}

/// What is under a queue's keys, or that our user may not touch them, says nothing about other queues. No server names the
/// key that it refuses, but all say that it was one.
fn is_about_keys(kind: Kind, error: &RedisError) -> bool {
    let text = error.to_string();
    match kind {
        Kind::Corrupt => true,
        Kind::Misconfigured => text.contains("access a key") || text.contains("of the keys"),
        Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Rejected | Kind::Superseded => {
            false
        }
    }
}

/// True if a fresh connection is needed: the old one is broken, or leads to the wrong server.
pub(crate) fn is_connection_spent(error: &RedisError) -> bool {
    let is_wrong_server = matches!(
        code_of(error).as_deref(),
        Some("READONLY" | "NOAUTH" | "MASTERDOWN" | "UNBLOCKED")
    );
    error.is_io_error() || is_wrong_server || error.kind() == ErrorKind::Parse
}

/// True if the server does not know the dialect that it was taken for: an older one has taken its place.
pub(crate) fn is_another_server(error: &RedisError) -> bool {
    error.to_string().contains("Error compiling script")
}

const UNKNOWN_COMMAND: &str = "unknown command";

/// What servers say of a request that would be wrong at any time.
const WRONG_REQUESTS: [&str; 7] = [
    "Protocol error",
    "syntax error",
    "wrong number of arguments",
    "value is not",
    "exceeds maximum",
    "invalid expire",
    "Number of keys",
];

const NO_PERMISSION: (Kind, &str) =
    (Kind::Misconfigured, "the user lacks a permission: see docs/redis-keys.md");

const CLUSTER: (Kind, &str) =
    (Kind::Misconfigured, "the server is a node of a cluster: this URL is for a single server");

/// The code of a server's error, if it is one that we know. Redis 6 wraps the errors of commands in scripts, and keeps their
/// code within the text, some with the sign that begins an error on the wire; proxies of hosted servers put `ERR` before them.
fn code_of(error: &RedisError) -> Option<String> {
    let is_known = |code: &&str| by_code(code).is_some();
    if let Some(code) = error.code().filter(is_known) {
        return Some(code.to_owned());
    }
    let text = error.to_string();
    if text.contains(UNKNOWN_COMMAND) {
        // It repeats the arguments, and they may say anything.
        return None;
    }
    let mut words = text.split_whitespace().map(|word| word.trim_matches([':', '-']));
    words.find(is_known).map(str::to_owned)
}

fn judge(error: &RedisError, phase: Phase) -> (Kind, &'static str) {
    if let Some(known) = code_of(error).as_deref().and_then(by_code) {
        return known;
    }
    let text = error.to_string();
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            (Kind::Misconfigured, "check user name and password in the URL")
        }
        ErrorKind::InvalidClientConfig => (Kind::Misconfigured, "check the URL"),
        ErrorKind::RESP3NotSupported => (Kind::Misconfigured, "Redis 6.2 or later is needed"),
        // Once a request is on its way, it says nothing about the request.
        _ if phase == Phase::Connecting && is_tls(error) => (
            Kind::Misconfigured,
            "check the certificates: `?ca=FILE` names the authority, and whether the server speaks TLS",
        ),
        _ if text.contains("max number of clients") => {
            (Kind::Unavailable, "the server has no connection left: raise maxclients")
        }
        _ if text.contains(UNKNOWN_COMMAND) => {
            (Kind::Misconfigured, "Redis 6.2 or later, or Valkey, is needed")
        }
        _ if text.contains("AUTH") && text.contains("password") => {
            (Kind::Misconfigured, "the server has no password: take it out of the URL")
        }
        _ if text.contains("not allowed in cluster mode")
            || text.contains("non local key")
            || text.contains("undeclared key") =>
        {
            CLUSTER
        }
        // Redis 7 and Valkey give these no code, but a place in the script.
        _ if text.contains("user executing the script can't")
            || text.contains("ACL failure in script") =>
        {
            NO_PERMISSION
        }
        _ if text.contains("DB index is out of range") => (
            Kind::Misconfigured,
            "the server has no such database: see `databases` in its configuration",
        ),
        _ if is_another_server(error) => (Kind::Busy, "another server has taken its place"),
        _ if text.contains("user_script") || text.contains("Error running script") => {
            (Kind::Corrupt, "a script met data that it cannot read")
        }
        _ if phase == Phase::Connecting => (Kind::Unavailable, ""),
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::Client => (Kind::Ambiguous, ""),
        _ if WRONG_REQUESTS.iter().any(|wrong| text.contains(wrong)) => (Kind::Rejected, ""),
        // Proxies of hosted servers have texts of their own. It may pass, and who wrote it may not know what was done.
        ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::Extension => {
            (Kind::Ambiguous, "an answer that is not known")
        }
        _ => (Kind::Rejected, ""),
    }
}

fn by_code(code: &str) -> Option<(Kind, &'static str)> {
    Some(match code {
        "LOADING" => (Kind::Busy, "the server is loading its data"),
        "BUSY" | "UNKILLABLE" => (Kind::Busy, "a script keeps the server busy"),
        "OOM" => (Kind::Busy, "the server's memory is full: raise maxmemory"),
        "MISCONF" => (Kind::Busy, "the server cannot write its snapshot: look at its disk and log"),
        "NOREPLICAS" => (Kind::Busy, "too few replicas are connected"),
        "TRYAGAIN" | "CLUSTERDOWN" => (Kind::Busy, "the cluster is being changed"),
        "MASTERDOWN" => (Kind::Busy, "the replica has no primary"),
        "UNBLOCKED" => (Kind::Unavailable, "the server has become a replica"),
        "READONLY" => (Kind::Unavailable, "the server is a replica: give the primary's address"),
        "NOAUTH" => (Kind::Misconfigured, "the server asks for a password: put it into the URL"),
        "WRONGPASS" => (Kind::Misconfigured, "check user name and password in the URL"),
        "NOPERM" => NO_PERMISSION,
        "DENIED" => (
            Kind::Misconfigured,
            "the server is in protected mode: give it a password, or bind it to an address",
        ),
        "MOVED" | "ASK" | "CROSSSLOT" => CLUSTER,
        "NOSCRIPT" => (Kind::Busy, "the server has lost its scripts"),
        "WRONGTYPE" => (Kind::Corrupt, "one of our keys holds data of another program"),
        _ => return None,
    })
}

fn is_tls(error: &RedisError) -> bool {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<rustls::Error>() {
            return true;
        }
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
        {
            return true;
        }
        source = error.source();
    }
    let text = error.to_string();
    text.contains("certificate") || text.contains("received fatal alert")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(line: &str) -> RedisError {
        let parsed = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        let value = parsed.expect("an error is a value");
        value.extract_error().expect_err("it is one")
    }

    /// The classes of errors with the words that servers use (catalogue §1b): as they are, wrapped in a script's error by Redis 6,
    /// and behind the `ERR` of a proxy.
    #[test]
    fn every_answer_of_a_server_has_its_kind() {
        let script =
            |text: &str| format!("ERR Error running script (call to f_0): @user_script:3: {text}");
        let cases = [
            ("LOADING Redis is loading the dataset in memory", Kind::Busy),
            ("BUSY Valkey is busy running a script.", Kind::Busy),
            ("UNKILLABLE Sorry the script already executed write commands", Kind::Busy),
            ("OOM command not allowed when used memory > 'maxmemory'.", Kind::Busy),
            ("MISCONF Errors writing to the AOF file: No space left on device", Kind::Busy),
            ("NOREPLICAS Not enough good replicas to write.", Kind::Busy),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Kind::Busy),
            ("CLUSTERDOWN Hash slot not served", Kind::Busy),
            ("MASTERDOWN Link with MASTER is down", Kind::Busy),
            ("READONLY You can't write against a read only replica.", Kind::Unavailable),
            ("UNBLOCKED force unblock from blocking operation", Kind::Unavailable),
            ("NOAUTH Authentication required.", Kind::Misconfigured),
            ("WRONGPASS invalid username-password pair", Kind::Misconfigured),
            ("NOPERM this user has no permissions to run 'evalsha'", Kind::Misconfigured),
            ("NOPERM No permissions to access a key", Kind::Misconfigured),
            ("DENIED Redis is running in protected mode", Kind::Misconfigured),
            ("MOVED 5718 10.0.0.8:6379", Kind::Misconfigured),
            ("CROSSSLOT Keys in request don't hash to the same slot", Kind::Misconfigured),
            ("WRONGTYPE Operation against a key", Kind::Corrupt),
        ];
        for (line, kind) in cases {
            for line in
                [line.to_owned(), format!("ERR {line}"), script(line), script(&format!("-{line}"))]
            {
                let error = classify(server(&line), "redis://h", Phase::Sent);
                assert_eq!(error.kind(), kind, "{line}");
                assert!(error.source().is_some() && error.to_string().starts_with("redis://h"));
            }
        }
    }

    #[test]
    fn answers_without_a_code_are_known_by_their_words_and_what_is_not_known_is_tried_again() {
        let cases = [
            ("max number of clients reached", Kind::Unavailable),
            ("DB index is out of range", Kind::Misconfigured),
            ("unknown command 'ZMSCORE'", Kind::Misconfigured),
            // Its arguments are repeated, and a payload may have any word in it.
            (
                "unknown command 'EVALSHA', with args beginning with: 'x LOADING y'",
                Kind::Misconfigured,
            ),
            ("AUTH <password> called without any password configured", Kind::Misconfigured),
            ("SELECT is not allowed in cluster mode", Kind::Misconfigured),
            ("Script attempted to access a non local key in a cluster node", Kind::Misconfigured),
            (
                "The user executing the script can't run this command or subcommand script: f, on @user_script:1.",
                Kind::Misconfigured,
            ),
            (
                "ACL failure in script: No permissions to access a key script: f, on @user_script:1.",
                Kind::Misconfigured,
            ),
            ("user_script:3: attempt to index a nil value", Kind::Corrupt),
            ("Protocol error: invalid bulk length", Kind::Rejected),
            ("value is not an integer or out of range", Kind::Rejected),
            ("Resource temporarily unavailable", Kind::Ambiguous),
            ("something else", Kind::Ambiguous),
        ];
        for (text, kind) in cases {
            let error = classify(server(&format!("ERR {text}")), "redis://h", Phase::Sent);
            assert_eq!(error.kind(), kind, "{text}");
        }
        let unheard = classify(server("TOO_MANY_REQUESTS slow down"), "h", Phase::Sent);
        assert_eq!(unheard.kind(), Kind::Ambiguous);
        let unheard = classify(server("TOO_MANY_REQUESTS slow down"), "h", Phase::Connecting);
        assert_eq!(unheard.kind(), Kind::Unavailable);
    }

    /// A server from before HELLO repeats what it does not understand: the password was in the logs, and in the outbox's notices.
    #[test]
    fn what_a_server_repeats_of_an_unknown_command_is_not_carried_on() {
        for line in [
            "ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'user' 's3cret' ",
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `user`, `s3cret`, ",
            "ERR unknown command: HELLO 3 AUTH user s3cret",
        ] {
            let error = classify(server(line), "redis://h", Phase::Connecting);
            assert_eq!(error.kind(), Kind::Misconfigured);
            let source = error.source().expect("what the server said is below");
            let said = format!("{error} {error:?} {source} {source:?}");
            assert!(said.contains("unknown command") && said.contains("HELLO"), "{said}");
            assert!(!said.contains("s3cret") && source.source().is_none(), "{said}");
        }
    }

    #[test]
    fn a_refusal_of_keys_concerns_its_queue_and_every_other_one_all_of_them() {
        for (line, expected) in [
            ("NOPERM No permissions to access a key", true),
            (
                "NOPERM this user has no permissions to access one of the keys used as arguments",
                true,
            ),
            (
                "ERR ACL failure in script: No permissions to access a key script: f, on @user_script:1.",
                true,
            ),
            (
                "ERR The user executing the script can't access at least one of the keys mentioned",
                true,
            ),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", true),
            ("NOPERM this user has no permissions to run the 'evalsha' command", false),
            ("NOAUTH Authentication required.", false),
            ("OOM command not allowed when used memory > 'maxmemory'.", false),
            ("ERR something else", false),
        ] {
            let error = classify(server(line), "h", Phase::Sent);
            assert_eq!(error.concerns_its_queue(), expected, "{line}");
        }
    }

    #[test]
    fn what_was_sent_without_an_answer_is_ambiguous_and_what_was_not_is_unavailable() {
        let broken = || RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(classify(broken(), "h", Phase::Sent).kind(), Kind::Ambiguous);
        assert_eq!(classify(broken(), "h", Phase::Connecting).kind(), Kind::Unavailable);
    }
}
