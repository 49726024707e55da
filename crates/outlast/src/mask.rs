//! A broker's URL as it may be shown: without what opens it.

/// What names a secret in a URL's query.
const SECRET_KEYS: [&str; 7] = ["password", "passwd", "pass", "pwd", "secret", "token", "auth"];

/// The URL with its secrets replaced by stars, fit for logs and errors. It errs on the side of the stars:
/// a password may hold any character that should have been escaped, and a URL may lack its scheme.
///
/// ```
/// use outlast::mask_url;
/// assert_eq!(mask_url("redis://queue:s@cret@10.0.0.7/0"), "redis://queue:***@10.0.0.7/0");
/// ```
#[must_use]
pub fn mask_url(url: &str) -> String {
    mask(url)
}

pub(crate) fn mask(url: &str) -> String {
    let (head, query) = url.split_at(query_start(url));
    let mut masked = match head.split_once("://") {
        // An embedded broker has no user, and a path may hold an `@`.
        _ if head.starts_with("sqlite:") => head.to_owned(),
        Some((scheme, rest)) => format!("{scheme}://{}", mask_user(rest)),
        None => mask_user(head),
    };
    for part in query.split_inclusive(['?', '&']) {
        let (pair, separator) = part.split_at(part.trim_end_matches(['?', '&']).len());
        masked.push_str(&mask_pair(pair));
        masked.push_str(separator);
    }
    masked
}

/// Where the query begins. A `?` with an `@` behind it and no `=` between belongs to a password.
fn query_start(url: &str) -> usize {
    let mut starts = url.match_indices('?').map(|(at, _)| at);
    let begins_query =
        |at: &usize| url[*at..].split_once('@').is_none_or(|(before, _)| before.contains('='));
    starts.find(begins_query).unwrap_or(url.len())
}

fn mask_user(rest: &str) -> String {
    let Some((user, host)) = rest.rsplit_once('@') else { return rest.to_owned() };
    match user.split_once(':') {
        Some((name, _)) if !name.is_empty() => format!("{name}:***@{host}"),
        _ => format!("***@{host}"),
    }
}

fn mask_pair(pair: &str) -> String {
    match pair.split_once('=') {
        Some((key, _)) if SECRET_KEYS.iter().any(|secret| key.eq_ignore_ascii_case(secret)) => {
            format!("{key}=***")
        }
        _ => pair.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_and_nothing_else() {
        let cases = [
            ("sqlite://tasks.db", "sqlite://tasks.db"),
            ("redis://:secret@10.0.0.7:6379/0", "redis://***@10.0.0.7:6379/0"),
            ("redis://queue:s@cret@host", "redis://queue:***@host"),
            ("redis://host/0?x=a@b", "redis://host/0?x=a@b"),
            ("redis://secret@host", "redis://***@host"),
            // The user info ended at the first slash, and the rest was shown.
            ("redis://user:pa/ss@host/0", "redis://user:***@host/0"),
            ("redis://user:pa?ss@host/0?db=1", "redis://user:***@host/0?db=1"),
            ("redis://user:pa#ss@host", "redis://user:***@host"),
            ("redis://host/0?db=1&Password=s3&x=y", "redis://host/0?db=1&Password=***&x=y"),
            ("redis://host?token=a=b", "redis://host?token=***"),
            ("redis://host?password=a@b", "redis://host?password=***"),
            ("user:secret@host:6379", "user:***@host:6379"),
            ("sqlite:///home/me@work/a.db", "sqlite:///home/me@work/a.db"),
            ("", ""),
        ];
        for (url, masked) in cases {
            assert_eq!(mask(url), masked);
        }
    }
}
