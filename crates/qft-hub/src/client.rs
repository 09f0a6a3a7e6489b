//! Requests to the hub: redirects without the token, what statuses mean, and what is worth another try.

use crate::error::Error;
use crate::name::Repository;
use crate::settings::{Settings, Token};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// What is waited for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The part of a server's own words that is shown.
const MAX_MESSAGE: usize = 300;

/// Bytes of a description of a repository, at most.
const MAX_DESCRIPTION_BYTES: u64 = 256 << 20;

/// Who asks for what, for messages and to say what a status means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) revision: &'a str,
    /// A file, or the description of the repository.
    pub(crate) what: &'a str,
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.what, self.repository)
    }
}

/// An answer, its body not read yet.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The headers of the one who answered.
    pub(crate) headers: HeaderMap,
    /// The hash that the hub itself gave, before it led elsewhere.
    pub(crate) etag: Option<String>,
    /// The length that the hub itself gave, before it led elsewhere.
    pub(crate) size: Option<u64>,
    body: Body,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It may be another way in a moment.
    Passing {
        /// What happened.
        why: String,
        /// The status, if there was an answer.
        status: Option<u16>,
        /// What the server asks to wait.
        wait: Option<Duration>,
    },
    /// It will not.
    Final(Error),
}

/// Asks a server.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
}

impl Answer {
    /// The body, to be read bit by bit.
    pub(crate) fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// All of the body, which is a description.
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>, Failure> {
        let read = self.body.into_with_config().limit(MAX_DESCRIPTION_BYTES).read_to_vec();
        read.map_err(|error| passing(&error))
    }

    /// A header as text.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    /// Errors: [`Error::Certificates`].
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, where it is known who may have the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(settings.retries.silence))
            .timeout_per_read(Some(settings.retries.silence))
            .user_agent(concat!("qft/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &settings.certificates {
            let roots = certificates(path)?;
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            agent: config.build().new_agent(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        })
    }

    /// The server, without what it may hold that is secret.
    pub(crate) fn endpoint(&self) -> String {
        public(&self.endpoint)
    }

    /// The address of the description of a repository.
    pub(crate) fn description(&self, repository: &Repository, revision: &str) -> String {
        let revision = encoded(revision, false);
        format!("{}/api/{}/revision/{revision}?blobs=true", self.endpoint, repository.api_path())
    }

    /// The address of a file.
    pub(crate) fn file(&self, repository: &Repository, commit: &str, path: &str) -> String {
        let path = encoded(path, true);
        format!("{}/{}/resolve/{commit}/{path}", self.endpoint, repository.path())
    }

    /// Asks for `url`, from byte `start` on. A status of success is an answer, and so is that there is nothing from
    /// `start` on (416).
    ///
    /// The token goes to the endpoint alone: where a redirect leads to another host, it stays behind.
    pub(crate) fn get(&self, url: &str, start: u64, asked: &Asked<'_>) -> Result<Answer, Failure> {
        self.request(url, start, asked, false)
    }

    /// Asks what the hub says of the file at `url`, not for the file: where it leads elsewhere, that is the answer.
    pub(crate) fn head(&self, url: &str, asked: &Asked<'_>) -> Result<Answer, Failure> {
        self.request(url, 0, asked, true)
    }

    fn request(
        &self,
        url: &str,
        start: u64,
        asked: &Asked<'_>,
        head: bool,
    ) -> Result<Answer, Failure> {
        let (mut url, mut etag, mut size) = (url.to_owned(), None, None);
        for _ in 0..=MAX_REDIRECTS {
            let own = same_origin(&url, &self.endpoint);
            let mut request = if head { self.agent.head(&url) } else { self.agent.get(&url) };
            request = request.header(header::ACCEPT_ENCODING, "identity");
            if start > 0 {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.header(header::AUTHORIZATION, token.header());
            }
            let (parts, body) =
                request.call().map_err(|error| self.failure(&error, asked))?.into_parts();
            let text = |name: &str| parts.headers.get(name)?.to_str().ok().map(str::to_owned);
            let redirect =
                parts.status.is_redirection() && parts.status != StatusCode::NOT_MODIFIED;
            if own {
                let plain = || text("etag").filter(|_| !redirect);
                etag = text("x-linked-etag").or_else(plain).or(etag);
                let length = || text("content-length").filter(|_| !redirect && start == 0);
                size = text("x-linked-size").or_else(length).and_then(|n| n.parse().ok()).or(size);
            }
            let next = match text("location").filter(|_| redirect) {
                Some(to) => Some(self.follow(&url, &to, asked)?),
                None => None,
            };
            // Where a file is elsewhere, all that is known of it was said.
            let known =
                head && next.as_ref().is_some_and(|next| !same_origin(next, &self.endpoint));
            if let Some(next) = next.filter(|_| !known) {
                url = next;
                continue;
            }
            let answer =
                Answer { status: parts.status.as_u16(), headers: parts.headers, etag, size, body };
            let fine = parts.status.is_success()
                || known
                || parts.status == StatusCode::RANGE_NOT_SATISFIABLE;
            return if fine { Ok(answer) } else { Err(self.refusal(answer, own, asked)) };
        }
        Err(Failure::Final(self.wrong(asked, "redirects that do not end".into())))
    }

    /// Where a redirect leads.
    fn follow(&self, url: &str, to: &str, asked: &Asked<'_>) -> Result<String, Failure> {
        let refuse = |problem: &str| Failure::Final(self.wrong(asked, problem.into()));
        let next = join(url, to).ok_or_else(|| refuse("a redirect that leads nowhere"))?;
        if url.starts_with("https://") && !next.starts_with("https://") {
            return Err(refuse("a redirect from https to an address that is not"));
        }
        Ok(next)
    }

    /// An answer that cannot be used.
    pub(crate) fn wrong(&self, asked: &Asked<'_>, problem: String) -> Error {
        Error::Answer { endpoint: self.endpoint(), what: asked.to_string(), problem }
    }

    /// What became of a request that failed for a moment, again and again.
    pub(crate) fn given_up(&self, asked: &Asked<'_>, why: String, status: Option<u16>) -> Error {
        let (endpoint, what) = (self.endpoint(), asked.to_string());
        match status {
            Some(status) => Error::Failing { endpoint, what, status, message: why },
            None => Error::Unreachable { endpoint, what, why },
        }
    }

    /// Why no answer came.
    fn failure(&self, error: &ureq::Error, asked: &Asked<'_>) -> Failure {
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Failure::Final(self.given_up(asked, reason(error), None))
            }
            error if is_distrust(error) => {
                let why = format!("{} (SSL_CERT_FILE names others to trust)", reason(error));
                Failure::Final(self.given_up(asked, why, None))
            }
            error => passing(error),
        }
    }

    /// What a status means that is none of success.
    fn refusal(&self, answer: Answer, own: bool, asked: &Asked<'_>) -> Failure {
        let status = answer.status;
        let said = answer.header("x-error-message").map(|text| shown(text, self.token.as_ref()));
        let message = said.map_or_else(String::new, |text| format!(": {text}"));
        if !own && matches!(status, 401 | 403 | 404 | 410) {
            // Addresses of other hosts are good for a time; another try gets a new one.
            let why = format!("the host that the hub leads to answers {status}");
            return Failure::Passing { why, status: Some(status), wait: None };
        }
        if matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504) {
            let why = format!("the server answers {status}{message}");
            return Failure::Passing { why, status: Some(status), wait: wait(&answer) };
        }
        let code = answer.header("x-error-code").unwrap_or_default();
        let (endpoint, repository) = (self.endpoint(), asked.repository.to_string());
        let (path, known) = (asked.repository.path(), self.token.is_some());
        Failure::Final(match (code, status) {
            ("GatedRepo", _) => Error::Gated { endpoint, repository, path, message },
            ("RevisionNotFound", _) => {
                Error::NoRevision { endpoint, repository, path, revision: asked.revision.into() }
            }
            ("EntryNotFound", _) => self.wrong(asked, "that it does not exist".into()),
            // Whoever is not known is not told whether a repository exists.
            ("RepoNotFound", _) | ("", 404) => self.no_repository(asked),
            ("", 401) if !known => self.no_repository(asked),
            (_, 401 | 403) => {
                Error::Unauthorized { endpoint, what: asked.to_string(), status, message }
            }
            _ => self.wrong(asked, format!("status {status}{message}")),
        })
    }

    fn no_repository(&self, asked: &Asked<'_>) -> Error {
        let known = self.token.is_some();
        Error::NoRepository {
            endpoint: self.endpoint(),
            kind: match asked.repository.kind {
                crate::name::Kind::Model => "model",
                crate::name::Kind::Data => "data set",
            },
            repository: asked.repository.to_string(),
            reader: if known { "the account of the token" } else { "anybody" },
            need: if known {
                "a token of an account that may read it"
            } else {
                "a token, in HF_TOKEN or by `hf auth login`"
            },
        }
    }
}

/// A failure of the connection, which may be another way in a moment.
pub(crate) fn passing(error: &ureq::Error) -> Failure {
    Failure::Passing { why: reason(error), status: None, wait: None }
}

/// An error of the library without addresses, which may hold secrets.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => "not an address".into(),
        ureq::Error::InvalidProxyUrl => "the proxy's address is not valid".into(),
        ureq::Error::ConnectProxyFailed(_) => "the proxy refuses the connection".into(),
        ureq::Error::Timeout(_) => "nothing came for too long".into(),
        ureq::Error::HostNotFound => "there is no host of this name".into(),
        ureq::Error::Io(error) => match error.kind() {
            ErrorKind::UnexpectedEof => "the connection ended early".into(),
            ErrorKind::TimedOut => "nothing came for too long".into(),
            _ => error.to_string(),
        },
        error => error.to_string(),
    }
}

/// Whether the server cannot show that it is the one that is meant, which no other try changes.
fn is_distrust(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(error) => error.kind() == ErrorKind::InvalidData,
        _ => false,
    }
}

/// What a server asks to wait: `Retry-After`, or the `t=` of `RateLimit`.
fn wait(answer: &Answer) -> Option<Duration> {
    let limit =
        || answer.header("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="));
    let seconds = answer.header(header::RETRY_AFTER).or_else(limit)?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// A server's words, cut to a length, on one line, and without the token even if it were to repeat it.
fn shown(text: &str, token: Option<&Token>) -> String {
    let hidden = match token.map(Token::header) {
        Some(header) => text.replace(header.trim_start_matches("Bearer "), "(the token)"),
        None => text.to_owned(),
    };
    hidden.chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn certificates(path: &std::path::Path) -> Result<RootCerts, Error> {
    let wrong = |problem: String| Error::Certificates { path: path.into(), problem };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut found: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(wrong("it holds no certificate".into()));
    }
    Ok(RootCerts::new_with_certs(&found))
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

fn same_origin(a: &str, b: &str) -> bool {
    matches!((origin(a), origin(b)), (Some(a), Some(b)) if a == b)
}

/// Where `to` leads from `base`, as a `Location` may say it; none if that is no address.
fn join(base: &str, to: &str) -> Option<String> {
    let uri: Uri = base.parse().ok()?;
    let root = || Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?));
    let joined = if to.starts_with("http://") || to.starts_with("https://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{}:{to}", uri.scheme_str()?)
    } else if to.starts_with('/') {
        format!("{}{to}", root()?)
    } else if to.contains("://") {
        return None;
    } else {
        let (folder, _) = uri.path().rsplit_once('/')?;
        format!("{}{folder}/{to}", root()?)
    };
    origin(&joined).map(|_| joined)
}

/// An address without the user and password that it may hold.
fn public(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('@'))) {
        Some((scheme, Some((user, host)))) if !user.contains('/') => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// A text as a part of an address, or as several with `/` between them.
fn encoded(text: &str, slashes: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (slashes && byte == b'/');
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(encoded("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encoded("a b/ü#?.txt", true), "a%20b/%C3%BC%23%3F.txt");
        let base = "https://hub:8443/a/b/c?x=1";
        for (to, expected) in [
            ("https://cdn/x?y", Some("https://cdn/x?y")),
            ("//cdn/x", Some("https://cdn/x")),
            ("/x", Some("https://hub:8443/x")),
            ("x", Some("https://hub:8443/a/b/x")),
            ("http://", None),
            ("ftp://cdn/x", None),
        ] {
            assert_eq!(join(base, to).as_deref(), expected, "{to}");
        }
        assert_eq!(public("https://me:secret@hub/x"), "https://hub/x");
        assert_eq!(public("https://hub/a@b"), "https://hub/a@b");
    }

    #[test]
    fn the_token_is_for_one_server() {
        let hub = "https://hub.example/prefix";
        for same in ["https://hub.example/x", "https://HUB.example:443/y"] {
            assert!(same_origin(same, hub), "{same}");
        }
        for other in [
            "http://hub.example/x",
            "https://hub.example:8443/x",
            "https://hub.example.evil/x",
            "https://hub.example@evil/x",
            "https://cdn.hub.example/x",
        ] {
            assert!(!same_origin(other, hub), "{other}");
        }
    }

    #[test]
    fn words_of_servers_are_cut_and_hide_the_token() {
        let token = Token::new("hf_secret").unwrap();
        let text = shown(&format!("no\nhf_secret {}", "x".repeat(1000)), token.as_ref());
        assert!(text.starts_with("no (the token)") && text.len() < 400, "{text}");
    }
}
