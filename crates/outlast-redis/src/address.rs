//! From a URL to where the server is and how to talk to it.
//!
//! | URL | server |
//! |---|---|
//! | `redis://[user[:password]@]host[:port][/db]` | by TCP |
//! | `rediss://…` | by TLS; `?ca=FILE`, `?cert=FILE&key=FILE` for certificates of one's own |
//! | `redis+unix:///path[?db=N&user=U&password=P]` | by its socket |
//!
//! `?password_file=FILE` has the password read from a file, again for each connection.
//! `?namespace=NAME` puts all keys below `NAME` instead of `asynq`.

use std::path::PathBuf;
use std::time::Duration;

use outlast_core::{BrokerError, Login};
use redis::io::tcp::TcpSettings;
use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, TlsCertificates,
};
use url::Url;

use crate::keys::{ASYNQ, Root};
use crate::password_file;

/// Where a server is, and the root of the keys there.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) info: ConnectionInfo,
    pub(crate) tls: Option<TlsCertificates>,
    /// Where the password comes from, if the URL does not say it itself.
    pub(crate) login: Option<Login>,
    pub(crate) root: Root,
    /// For people: never with a password.
    pub(crate) shown: String,
}

/// Bytes of a namespace: it begins every key.
const NAMESPACE_BYTES_MAX: usize = 64;

/// The port of a URL that names none.
const PORT_DEFAULT: u16 = 6379;

impl Address {
    /// Where the tasks are, whoever asks for them and however the URL is written.
    pub(crate) fn place(&self) -> String {
        let db = self.info.redis_settings().db();
        format!("{}/{db} {}", self.info.addr(), self.root.as_str())
    }

    /// Reads a URL.
    pub(crate) fn parse(text: &str) -> Result<Self, BrokerError> {
        let wrong = |shown: &str, why: String| {
            BrokerError::rejected(format!("broker {shown:?} cannot be used: {why}"))
        };
        let url = Url::parse(text).map_err(|error| {
            // The text itself may hold a password that could not be told apart.
            let scheme = text.split_once("://").map_or("redis", |(scheme, _)| scheme);
            wrong(&format!("{scheme}://…"), format!("{error}; write redis://host:port/db"))
        })?;
        let shown = shown(&url);
        let options = Options::read(&url).map_err(|why| wrong(&shown, why))?;
        let addr = options.address(&url).map_err(|why| wrong(&shown, why))?;
        let settings = options.settings(&url).map_err(|why| wrong(&shown, why))?;
        let login = options.password_file.clone().map(password_file::login).transpose();
        let login = login.map_err(|why| wrong(&shown, why))?;
        let tls = options.certificates().map_err(|why| wrong(&shown, why))?;
        let info = addr.into_connection_info().map_err(|error| {
            BrokerError::rejected(format!("broker {shown:?} cannot be used")).with_source(error)
        })?;
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp_settings());
        Ok(Self { info, tls, login, root: Root::new(&options.namespace), shown })
    }
}

/// Half-open connections are noticed within seconds, and small writes do not wait for an answer.
fn tcp_settings() -> TcpSettings {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2));
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(5));
    settings
}

#[derive(Default)]
struct Options {
    namespace: String,
    db: Option<i64>,
    user: Option<String>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Options {
    fn read(url: &Url) -> Result<Self, String> {
        let mut options = Self { namespace: ASYNQ.to_owned(), ..Self::default() };
        for (name, value) in url.query_pairs() {
            let value = value.into_owned();
            match &*name {
                "namespace" => options.namespace = namespace(value)?,
                "db" => options.db = Some(number(&value)?),
                "user" => options.user = Some(value),
                "password" => options.password = Some(value),
                "password_file" => options.password_file = Some(value.into()),
                "ca" => options.ca = Some(value.into()),
                "cert" => options.cert = Some(value.into()),
                "key" => options.key = Some(value.into()),
                other => {
                    return Err(format!(
                        "option {other:?} is unknown; namespace, db, user, password, password_file, ca, cert and key are known"
                    ));
                }
            }
        }
        Ok(options)
    }

    fn address(&self, url: &Url) -> Result<ConnectionAddr, String> {
        let is_tls = url.scheme() == "rediss";
        if !is_tls && (self.ca.is_some() || self.cert.is_some() || self.key.is_some()) {
            return Err(
                "ca, cert and key are for rediss://, where the connection is encrypted".into()
            );
        }
        if url.scheme() == "redis+unix" {
            let path = percent_decoded(url.path())?;
            if url.host_str().is_some_and(|host| !host.is_empty()) || path.len() < 2 {
                return Err("write redis+unix:///path/to/redis.sock with three slashes".into());
            }
            return Ok(ConnectionAddr::Unix(path.into()));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
        // Of an IPv6 address the brackets belong to the URL.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port().unwrap_or(PORT_DEFAULT);
        Ok(match is_tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        })
    }

    fn settings(&self, url: &Url) -> Result<RedisConnectionInfo, String> {
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("outlast", env!("CARGO_PKG_VERSION"));
        let in_path = (url.scheme() != "redis+unix").then(|| url.path().trim_start_matches('/'));
        let in_path = in_path.filter(|db| !db.is_empty()).map(number).transpose()?;
        login = login.set_db(self.db.or(in_path).unwrap_or(0));
        let user = percent_decoded(url.username())?;
        let user = self.user.clone().or((!user.is_empty()).then_some(user));
        let password = url.password().map(percent_decoded).transpose()?;
        if let Some(user) = user {
            login = login.set_username(user);
        }
        let password = self.password.clone().or(password);
        if password.is_some() && self.password_file.is_some() {
            return Err("it gives a password and a password_file: keep one of them".into());
        }
        if let Some(password) = password {
            login = login.set_password(password);
        }
        Ok(login)
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, String> {
        let client_tls = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: file("cert", cert)?,
                client_key: file("key", key)?,
            }),
            (None, None) => None,
            _ => return Err("cert and key go together: give both files".into()),
        };
        let root_cert = self.ca.as_ref().map(|path| file("ca", path)).transpose()?;
        let any = client_tls.is_some() || root_cert.is_some();
        Ok(any.then_some(TlsCertificates { client_tls, root_cert }))
    }
}

fn file(option: &str, path: &PathBuf) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{option} {}: {error}", path.display()))
}

fn number(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| format!("db {text:?} is no number; write redis://host:port/0"))
}

fn namespace(text: String) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > NAMESPACE_BYTES_MAX || !text.chars().all(is_plain) {
        return Err(format!(
            "namespace {text:?} must be 1 to {NAMESPACE_BYTES_MAX} letters, digits, dots, dashes or underscores"
        ));
    }
    Ok(text)
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| "it holds bytes that are no text".into())
}

/// The URL without its password.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let secret = url.password().is_some();
    if secret && url.set_password(Some("***")).is_err() {
        return format!("{}://…", url.scheme());
    }
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let value = if name == "password" { "***".into() } else { value };
            (name.into_owned(), value.into_owned())
        })
        .collect();
    if !pairs.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Address {
        Address::parse(url).expect(url)
    }

    #[test]
    fn a_url_says_where_the_server_is_and_who_asks() {
        let address = parsed("redis://worker:p%40ss@10.0.0.7:6380/3");
        assert_eq!(address.info.addr(), &ConnectionAddr::Tcp("10.0.0.7".into(), 6380));
        let login = address.info.redis_settings();
        assert_eq!((login.username(), login.password()), (Some("worker"), Some("p@ss")));
        assert_eq!(login.db(), 3);
        assert_eq!(address.root.as_str(), "asynq");
        assert_eq!(address.shown, "redis://worker:***@10.0.0.7:6380/3");
    }

    #[test]
    fn what_a_url_leaves_out_has_a_default() {
        let address = parsed("redis://localhost");
        assert_eq!(address.info.addr(), &ConnectionAddr::Tcp("localhost".into(), 6379));
        assert_eq!(address.info.redis_settings().db(), 0);
        let v6 = parsed("redis://[::1]:7000");
        assert_eq!(v6.info.addr(), &ConnectionAddr::Tcp("::1".into(), 7000));
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        let address = parsed("redis+unix:///run/my%20redis.sock?db=2&password=secret");
        assert_eq!(address.info.addr(), &ConnectionAddr::Unix("/run/my redis.sock".into()));
        let login = address.info.redis_settings();
        assert_eq!((login.db(), login.password()), (2, Some("secret")));
        assert!(!address.shown.contains("secret"), "{}", address.shown);
    }

    #[test]
    fn a_place_is_the_same_for_everyone_who_asks_and_however_the_url_is_written() {
        let place = parsed("redis://10.0.0.7").place();
        assert_eq!(place, "10.0.0.7:6379/0 asynq");
        for same in ["redis://u:pw@10.0.0.7:6379/0", "redis://10.0.0.7/?namespace=asynq&user=u"] {
            assert_eq!(parsed(same).place(), place, "{same}");
        }
        for other in ["redis://10.0.0.8", "redis://10.0.0.7/1", "redis://10.0.0.7?namespace=x"] {
            assert_ne!(parsed(other).place(), place, "{other}");
        }
    }

    #[test]
    fn a_namespace_takes_the_place_of_asynqs() {
        assert_eq!(parsed("redis://h/0?namespace=billing").root.queues(), "billing:queues");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_password() {
        let cases = [
            ("redis://:pw@", "empty host"),
            ("redis://u:pw@h/x", "db \"x\" is no number"),
            ("redis://u:pw@h/-1", "db \"-1\" is no number"),
            ("redis://u:pw@h?colour=red", "option \"colour\" is unknown"),
            ("redis://u:pw@h?namespace=a:b", "namespace \"a:b\" must be"),
            ("redis://u:pw@h?ca=x", "are for rediss://"),
            ("rediss://u:pw@h?cert=x", "cert and key go together"),
            ("rediss://u:pw@h?ca=/nowhere/ca.pem", "ca /nowhere/ca.pem"),
            ("redis://u:pw@h?password_file=/nowhere", "a password and a password_file"),
            ("redis://u@h?password_file=/nowhere/pass", "password_file /nowhere/pass"),
            ("redis+unix://host/x", "three slashes"),
            ("redis://u:pw@h:99999", "invalid port"),
        ];
        for (url, why) in cases {
            let error = Address::parse(url).expect_err(url).to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("pw"), "{error}");
        }
    }
}
