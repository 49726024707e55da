//! How a connection is opened: what [`Connection::open`] does by itself, and what can be said otherwise.

use std::fmt;

use outlast_core::{Credentials, Login};

use crate::Connection;
use crate::connect::Contact;
use crate::error::{Error, Result};
use crate::mask::mask;
use crate::survive::Survive;

/// What a connection is opened with; see [`Connection::builder`]. Shown without the password.
#[derive(Clone)]
#[must_use = "nothing is opened yet"]
pub struct ConnectionBuilder {
    url: String,
    store: Store,
    login: Option<Login>,
}

impl fmt::Debug for ConnectionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, store, login } = self;
        let mut shown = f.debug_struct("ConnectionBuilder");
        shown.field("url", &mask(url)).field("store", store).field("login", login).finish()
    }
}

/// Where tasks wait while the broker is away.
#[derive(Clone, Debug)]
enum Store {
    /// In a file that nobody has named, unless the broker is a file itself.
    Default,
    Chosen(Survive),
    Nowhere,
}

impl Connection {
    /// Begins to open the broker behind `url`, for whoever has more to say than [`Connection::open`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
    /// use outlast::{Connection, Credentials};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let survive = outlast::survive::Survive::new(folder.path().join("outbox.db"));
    /// async fn secret() -> std::io::Result<Credentials> {
    ///     // From wherever it is kept: asked again for each connection.
    ///     Ok(Credentials::new("queue", "s3cret"))
    /// }
    /// let connection =
    ///     Connection::builder("redis://127.0.0.1:1").credentials(secret).survive(survive).open().await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(url: &str) -> ConnectionBuilder {
        ConnectionBuilder { url: url.to_owned(), store: Store::Default, login: None }
    }
}

impl ConnectionBuilder {
    /// Outlives outages like this, also those of an embedded broker.
    pub fn survive(mut self, survive: Survive) -> Self {
        self.store = Store::Chosen(survive);
        self
    }

    /// Keeps nothing on this machine's disk: see [`Connection::without_spool`].
    pub fn without_spool(mut self) -> Self {
        self.store = Store::Nowhere;
        self
    }

    /// Asks this for user and password whenever a connection to the server is made, so that they can change while everything
    /// runs: a server that refuses them is tried again with what they are then. They come before those of the URL. An
    /// answer counts to the three seconds that a connection may take.
    pub fn credentials<F, A, E>(mut self, ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.login = Some(Login::new(ask));
        self
    }

    /// Opens it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Errors
    /// As [`Connection::open`]; credentials for an embedded broker are [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
    pub async fn open(self) -> Result<Connection> {
        let is_embedded = self.url.starts_with("sqlite:");
        if is_embedded && self.login.is_some() {
            let what =
                "an embedded broker asks for no credentials: who may open its file may use it";
            return Err(Error::invalid(what));
        }
        let survive = match self.store {
            Store::Chosen(survive) => survive,
            Store::Default if !is_embedded => Survive::default(),
            Store::Default | Store::Nowhere => {
                return Connection::reach(&self.url, Contact::Now, self.login).await;
            }
        };
        let connection = Connection::reach(&self.url, Contact::Later, self.login).await?;
        connection.survive(survive).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever logged a builder logged the password in its URL.
    #[test]
    fn a_builder_is_shown_without_the_password() {
        let builder = Connection::builder("redis://queue:s3cret@10.0.0.7/0");
        let shown = format!("{builder:?}");
        assert!(shown.contains("redis://queue:***@10.0.0.7/0"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
