//! Posts a task to an HTTP endpoint, and reads the answer as the outcome.
//!
//! ```text
//! 2xx                          done; the body is the result
//! 429, 503 with Retry-After    retry at that time
//! 408, 425, 429, 3xx, 5xx      retry
//! every other 4xx              archive: the endpoint says that this request is wrong
//! no answer                    retry
//! ```

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};

use crate::config::masked;

/// How long connecting may take. A run has its own, longer limit for everything together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Redirects that are followed, within the endpoint's own origin.
const REDIRECTS_MAX: usize = 5;

/// Bytes of an error's body that become part of the error text.
const ERROR_BODY_KEPT: usize = 4 * 1024;

/// The longest Retry-After that is obeyed: beyond it the ordinary backoff is the better guess.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// An endpoint, ready to be called for any task.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    url: Url,
    output_max: usize,
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) payload: Bytes,
    /// Facts about the task, by their header names.
    pub(crate) facts: Vec<(&'static str, String)>,
    /// The task's own headers.
    pub(crate) headers: Vec<(String, String)>,
}

/// What the answer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, with the beginning of the body.
    Done { body: Bytes, is_cut: bool },
    /// To be tried again, after this long if the endpoint says so.
    Retry { error: String, after: Option<Duration> },
    /// Never to be tried again.
    Archive { error: String },
}

/// The program's only HTTP client: its connections are shared by all endpoints.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::custom(follow))
        .user_agent(concat!("outlast/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Only redirects that repeat the POST, and only to where the request was meant to go: a payload is not
/// handed to another host.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let keeps_method =
        matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let is_same_origin =
        attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    match keeps_method && is_same_origin && attempt.previous().len() <= REDIRECTS_MAX {
        true => attempt.follow(),
        false => attempt.stop(),
    }
}

impl Http {
    pub(crate) fn new(client: Client, url: Url, output_max: usize) -> Self {
        Self { client, url, output_max }
    }

    /// Sends the request and waits for the answer. Dropping the future closes the connection.
    pub(crate) async fn call(&self, request: Request) -> Answer {
        let headers = headers(&request);
        let sent = self.client.post(self.url.clone()).headers(headers).body(request.payload);
        match sent.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => self.unanswered(error),
        }
    }

    async fn read(&self, response: reqwest::Response) -> Answer {
        let status = response.status();
        if status.is_success() {
            return match body(response, self.output_max).await {
                Ok((body, is_cut)) => Answer::Done { body, is_cut },
                Err(error) => self.unanswered(error),
            };
        }
        let after = retry_after(response.headers());
        let said = body(response, ERROR_BODY_KEPT).await.unwrap_or_default().0;
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        let url = masked(self.url.as_str());
        let error = match said.is_empty() {
            true => format!("{url} answered {status}"),
            false => format!("{url} answered {status}: {said}"),
        };
        match is_wrong(status) {
            true => Answer::Archive { error },
            false => Answer::Retry { error, after },
        }
    }

    fn unanswered(&self, error: reqwest::Error) -> Answer {
        // The URL may hold a password, so it is told in our words.
        let error = crate::exit::chain(&error.without_url());
        Answer::Retry { error: format!("{}: {error}", masked(self.url.as_str())), after: None }
    }
}

/// True for answers that say that the request is wrong and will be wrong tomorrow.
fn is_wrong(status: StatusCode) -> bool {
    let may_change =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !may_change.contains(&status)
}

fn headers(request: &Request) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    for (name, value) in &request.facts {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    for (name, value) in &request.headers {
        // The content type is the payload's; every other header is marked as the task's, so that a task
        // cannot pretend to be somebody else.
        let name = match name.eq_ignore_ascii_case("content-type") {
            true => Ok(CONTENT_TYPE),
            false => HeaderName::try_from(format!("outlast-header-{name}")),
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers
}

/// Seconds; the form with a date is rare and needs a clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|after| *after <= RETRY_AFTER_MAX)
}

/// The first `most` bytes of the body. What comes behind them is not read: closing the connection is
/// cheaper than a body without an end.
async fn body(
    mut response: reqwest::Response,
    most: usize,
) -> Result<(Bytes, bool), reqwest::Error> {
    let mut kept = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = most - kept.len();
        if chunk.len() > room {
            kept.extend_from_slice(&chunk[..room]);
            return Ok((kept.freeze(), true));
        }
        kept.extend_from_slice(&chunk);
    }
    Ok((kept.freeze(), false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers one request with `answer` and gives back what was asked.
    async fn served(answer: &'static str, request: Request) -> (Answer, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("has an address");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a caller");
            let mut asked = Vec::new();
            while !asked.ends_with(b"body!") {
                stream.read_buf(&mut asked).await.expect("a request");
            }
            stream.write_all(answer.as_bytes()).await.expect("is read");
            String::from_utf8_lossy(&asked).into_owned()
        };
        let url = format!("http://{address}/run").parse().expect("a url");
        let http = Http::new(client().expect("a client"), url, 8);
        tokio::join!(http.call(request), server)
    }

    fn request() -> Request {
        Request {
            payload: Bytes::from_static(b"body!"),
            facts: vec![("outlast-task-id", "42".into())],
            headers: vec![
                ("Tenant".into(), "acme".into()),
                ("content-type".into(), "text/plain".into()),
            ],
        }
    }

    #[tokio::test]
    async fn a_good_answer_is_the_result_up_to_the_limit() {
        let (answer, asked) =
            served("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world", request()).await;
        let body = Bytes::from_static(b"hello wo");
        assert_eq!(answer, Answer::Done { body, is_cut: true });
        for line in [
            "POST /run ",
            "outlast-task-id: 42",
            "outlast-header-tenant: acme",
            "content-type: text/plain",
        ] {
            assert!(asked.contains(line), "{asked}");
        }
    }

    #[tokio::test]
    async fn other_answers_retry_or_archive() {
        let wrong = served("HTTP/1.1 422 No\r\ncontent-length: 3\r\n\r\nbad", request()).await.0;
        assert!(
            matches!(wrong, Answer::Archive { error } if error.ends_with("answered 422 Unprocessable Entity: bad"))
        );
        let busy = "HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
        let after = Some(Duration::from_secs(7));
        assert!(
            matches!(served(busy, request()).await.0, Answer::Retry { after: a, .. } if a == after)
        );
        let moved =
            "HTTP/1.1 302 Found\r\nlocation: http://other.invalid/\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(served(moved, request()).await.0, Answer::Retry { after: None, .. }));
        assert!(matches!(served("", request()).await.0, Answer::Retry { .. }));
    }
}
