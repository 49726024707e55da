//! What the server and the network say, by what it means for the caller (design §4). The only file that
//! knows their texts.

use std::error::Error as StdError;

use outlast_core::{BrokerError, Kind};
use redis::{ErrorKind, RedisError};

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
    BrokerError::new(kind, what).with_source(error)
}

/// True if a fresh connection is needed: the old one is broken, or leads to the wrong server.
pub(crate) fn is_connection_spent(error: &RedisError) -> bool {
    let is_wrong_server =
        matches!(code_of(error).as_deref(), Some("READONLY" | "NOAUTH" | "MASTERDOWN"));
    error.is_io_error() || is_wrong_server || error.kind() == ErrorKind::Parse
}

const NO_PERMISSION: (Kind, &str) =
    (Kind::Misconfigured, "the user lacks a permission: see docs/redis-keys.md");

/// The code of a server's error, if it is one that we know. Redis 6 wraps the errors of commands in scripts, and keeps their
/// code within the text, some with the sign that begins an error on the wire.
fn code_of(error: &RedisError) -> Option<String> {
    let is_known = |code: &&str| by_code(code).is_some();
    if let Some(code) = error.code().filter(is_known) {
        return Some(code.to_owned());
    }
    let text = error.to_string();
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
        _ if text.contains("unknown command") => {
            (Kind::Misconfigured, "Redis 6.2 or later, or Valkey, is needed")
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
        _ if text.contains("user_script") || text.contains("Error running script") => {
            (Kind::Corrupt, "a script met data that it cannot read")
        }
        _ if phase == Phase::Connecting => (Kind::Unavailable, ""),
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::Client => (Kind::Ambiguous, ""),
        _ => (Kind::Rejected, ""),
    }
}

fn by_code(code: &str) -> Option<(Kind, &'static str)> {
    Some(match code {
        "LOADING" => (Kind::Busy, "the server is loading its data"),
        "BUSY" => (Kind::Busy, "a script keeps the server busy"),
        "OOM" => (Kind::Busy, "the server's memory is full: raise maxmemory"),
        "MISCONF" => (Kind::Busy, "the server cannot write its snapshot: look at its disk and log"),
        "NOREPLICAS" => (Kind::Busy, "too few replicas are connected"),
        "TRYAGAIN" | "CLUSTERDOWN" => (Kind::Busy, "the cluster is being changed"),
        "MASTERDOWN" => (Kind::Busy, "the replica has no primary"),
        "READONLY" => (Kind::Unavailable, "the server is a replica: give the primary's address"),
        "NOAUTH" => (Kind::Misconfigured, "the server asks for a password: put it into the URL"),
        "WRONGPASS" => (Kind::Misconfigured, "check user name and password in the URL"),
        "NOPERM" => NO_PERMISSION,
        "MOVED" | "ASK" | "CROSSSLOT" => (
            Kind::Misconfigured,
            "the server is a node of a cluster: this URL is for a single server",
        ),
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

    #[test]
    fn every_answer_of_a_server_has_its_kind() {
        let cases = [
            ("LOADING Redis is loading the dataset in memory", Kind::Busy),
            ("BUSY Redis is busy running a script.", Kind::Busy),
            ("OOM command not allowed when used memory > 'maxmemory'.", Kind::Busy),
            ("MISCONF Redis is configured to save RDB snapshots", Kind::Busy),
            ("NOREPLICAS Not enough good replicas to write.", Kind::Busy),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Kind::Busy),
            ("CLUSTERDOWN Hash slot not served", Kind::Busy),
            ("READONLY You can't write against a read only replica.", Kind::Unavailable),
            ("NOAUTH Authentication required.", Kind::Misconfigured),
            ("WRONGPASS invalid username-password pair", Kind::Misconfigured),
            (
                "NOPERM this user has no permissions to run the 'evalsha' command",
                Kind::Misconfigured,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: f, on @user_script:1.",
                Kind::Misconfigured,
            ),
            ("ERR DB index is out of range", Kind::Misconfigured),
            ("MOVED 5718 10.0.0.8:6379", Kind::Misconfigured),
            ("WRONGTYPE Operation against a key", Kind::Corrupt),
            (
                "ERR Error running script (call to f_0): @user_script:3: WRONGTYPE Operation",
                Kind::Corrupt,
            ),
            (
                "ERR Error running script (call to f_0): @user_script:49: @user_script: 49: -OOM command not allowed",
                Kind::Busy,
            ),
            (
                "ERR Error running script (call to f_0): @user_script:75: @user_script: 75: -READONLY You can't write",
                Kind::Unavailable,
            ),
            ("ERR user_script:3: attempt to index a nil value", Kind::Corrupt),
            ("ERR unknown command 'ZMSCORE'", Kind::Misconfigured),
            ("ERR something else", Kind::Rejected),
        ];
        for (line, kind) in cases {
            let error = classify(server(line), "redis://h", Phase::Sent);
            assert_eq!(error.kind(), kind, "{line}");
            assert!(error.source().is_some() && error.to_string().starts_with("redis://h"));
        }
    }

    #[test]
    fn what_was_sent_without_an_answer_is_ambiguous_and_what_was_not_is_unavailable() {
        let broken = || RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(classify(broken(), "h", Phase::Sent).kind(), Kind::Ambiguous);
        assert_eq!(classify(broken(), "h", Phase::Connecting).kind(), Kind::Unavailable);
    }
}
