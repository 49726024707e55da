//! Who a connection says it is: asked anew for each one, so that a password can change while everything runs.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

type BoxError = Box<dyn StdError + Send + Sync + 'static>;
type Answer = Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send>>;

/// A user's name and password. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user; that of the URL, or the server's default one, if there is none.
    pub user: Option<String>,
    /// The password.
    pub password: String,
}

impl Credentials {
    /// A password, for the user of the URL.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// A user and its password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password: password.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Where credentials come from. Cheap to clone.
#[derive(Clone)]
pub struct Login {
    ask: Arc<dyn Fn() -> Answer + Send + Sync>,
}

impl Login {
    /// Credentials that this answers with, each time a connection is made.
    pub fn new<F, A, E>(ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let ask = move || -> Answer {
            let answer = ask();
            Box::pin(async move { answer.await.map_err(Into::into) })
        };
        Self { ask: Arc::new(ask) }
    }

    /// What they are now. Safe to drop if the function behind it is.
    ///
    /// # Errors
    /// [`LoginError`] with what that function answers.
    pub async fn ask(&self) -> Result<Credentials, LoginError> {
        (self.ask)().await.map_err(|source| LoginError { source })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// There are no credentials now.
#[derive(Debug)]
pub struct LoginError {
    source: BoxError,
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not get the credentials: {}", self.source)
    }
}

impl StdError for LoginError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_shown_without_their_password() {
        let shown = format!("{:?}", Credentials::new("worker", "geheim"));
        assert!(shown.contains("worker") && !shown.contains("geheim"), "{shown}");
    }
}
