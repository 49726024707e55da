//! `?password_file=PATH`: a password that somebody else writes and changes, read again for every connection.

use std::io;
use std::path::PathBuf;

use outlast_core::login::{Credentials, Login};

/// The login of a file. It is read once at once: a path that is wrong is told when the URL is.
///
/// # Errors
/// What is wrong with the file.
pub(crate) fn login(path: PathBuf) -> Result<Login, String> {
    read(&path).map_err(|error| format!("password_file {}: {error}", path.display()))?;
    Ok(Login::new(move || {
        let path = path.clone();
        // Files of secrets are in memory, but nobody has to keep to that.
        let reading = tokio::task::spawn_blocking(move || {
            let password = read(&path);
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            password.map(Credentials::password).map_err(named)
        });
        async move { reading.await.map_err(io::Error::other)? }
    }))
}

/// The first line: editors end it, and a password does not.
fn read(path: &PathBuf) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "its first line is empty")),
    }
}
