//! A server as the Hugging Face hub is one, on this machine, with the faults that networks and servers have.
//!
//! Large files are on a host of their own, to which the hub leads, and which does not want to see the token.

use serde_json::{Value, json};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A file as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The header `Authorization`, if there was one.
    pub authorization: Option<String>,
    /// The header `Range`, if there was one.
    pub range: Option<String>,
    /// Whether it came to the host of large files.
    pub to_files: bool,
}

/// What a server does wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after this many bytes of the body.
    Drop(usize),
    /// The file comes from its start, whatever part was asked for.
    IgnoreRange,
    /// The bytes are others, as many.
    WrongBytes,
    /// The body has this many bytes more, and the header says so.
    Longer(usize),
    /// The body has this many bytes less, and the header says so.
    Shorter(usize),
    /// The header announces this many bytes more than come.
    Announce(usize),
    /// This status, with the error code and another header that the hub gives.
    Status(u16, &'static str, &'static str),
    /// Another location, with this status.
    Redirect(u16, String),
    /// Nothing for this long, after this many bytes of the body.
    Silence(usize, Duration),
    /// The body comes in pieces, with a rest after each.
    Slow(usize, Duration),
}

/// A repository: its files by commit, and where its branches are.
#[derive(Debug, Default)]
struct Repository {
    commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    branches: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    faults: Vec<(String, Fault, usize)>,
    log: Vec<Request>,
    /// Whether descriptions have sizes and hashes.
    described: bool,
    /// The token that is needed, if any.
    token: Option<String>,
}

/// The server. It answers until the process ends.
#[derive(Debug, Clone)]
pub struct HubServer {
    state: Arc<Mutex<State>>,
    hub: u16,
    files: u16,
}

impl HubServer {
    /// Begins to answer, on two free ports.
    ///
    /// # Panics
    ///
    /// Where no port can be had.
    pub fn start() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("no port: {e}"));
        let (hub, files) = (bind(), bind());
        let port = |listener: &TcpListener| listener.local_addr().map_or(0, |at| at.port());
        let state = State { described: true, ..State::default() };
        let server =
            Self { state: Arc::new(Mutex::new(state)), hub: port(&hub), files: port(&files) };
        for (listener, to_files) in [(hub, false), (files, true)] {
            let server = server.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().filter_map(Result::ok) {
                    let server = server.clone();
                    std::thread::spawn(move || server.answer(stream, to_files));
                }
            });
        }
        server
    }

    /// The address of the hub.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.hub)
    }

    /// The address of the host of large files.
    pub fn files(&self) -> String {
        format!("http://127.0.0.1:{}", self.files)
    }

    /// Puts `files` into a repository, such as `models/org/name`, as the commit of forty times `commit`; `main` is there
    /// then.
    pub fn commit(&self, repository: &str, commit: char, files: &[(&str, &[u8])]) -> String {
        let commit = commit.to_string().repeat(40);
        let files =
            files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
        let mut state = self.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.commits.insert(commit.clone(), files);
        repository.branches.insert("main".into(), commit.clone());
        commit
    }

    /// Makes a branch or tag.
    pub fn branch(&self, repository: &str, branch: &str, commit: &str) {
        let mut state = self.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.branches.insert(branch.into(), commit.into());
    }

    /// Does something wrong, `times` times, where the path has `part` in it and the host is that of the bytes for a fault of
    /// bytes, or the hub for others.
    pub fn fault(&self, part: &str, fault: Fault, times: usize) {
        self.state().faults.push((part.to_owned(), fault, times));
    }

    /// Does nothing wrong from now on.
    pub fn mend(&self) {
        self.state().faults.clear();
    }

    /// Leaves sizes and hashes out of descriptions, as some mirrors do.
    pub fn describe_less(&self) {
        self.state().described = false;
    }

    /// Shows repositories to none but who has this token.
    pub fn require(&self, token: &str) {
        self.state().token = Some(token.to_owned());
    }

    /// What was asked for until now, and forgets it.
    pub fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().log)
    }

    /// Whether something was asked for that `is` holds of.
    pub fn peek(&self, is: impl Fn(&Request) -> bool) -> bool {
        self.state().log.iter().any(is)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, stream: TcpStream, to_files: bool) {
        let Some(request) = read_request(&stream, to_files) else { return };
        let (response, fault) = {
            let mut state = self.state();
            state.log.push(request.clone());
            let response = state.respond(&request, &self.files());
            let carries = response.status < 300;
            let fits = |(part, fault, times): &(String, Fault, usize)| {
                let of_answer = matches!(fault, Fault::Status(..) | Fault::Redirect(..));
                *times > 0 && request.path.contains(part) && (of_answer || carries)
            };
            let fault = state.faults.iter_mut().find(|entry| fits(entry)).map(|entry| {
                entry.2 -= 1;
                entry.1.clone()
            });
            (response, fault)
        };
        let _ = response.send(&stream, &request, fault);
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// An answer without faults.
struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl State {
    fn respond(&self, request: &Request, files: &str) -> Response {
        let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let path = decoded(path);
        if request.to_files {
            // As S3 does with two kinds of authorization at once.
            return match (&request.authorization, path.strip_prefix("/blob/")) {
                (Some(_), _) => Response::error(400, "", "two kinds of authorization"),
                (None, Some(hash)) => self.blob(hash),
                _ => Response::error(404, "", ""),
            };
        }
        let known = self.token.as_ref().is_none_or(|token| {
            request.authorization.as_deref() == Some(format!("Bearer {token}").as_str())
        });
        if !known {
            return Response::error(401, "RepoNotFound", "Repository not found");
        }
        self.described_or_file(&path, files)
            .unwrap_or_else(|| Response::error(404, "RepoNotFound", "Repository not found"))
    }

    fn described_or_file(&self, path: &str, files: &str) -> Option<Response> {
        if let Some(rest) = path.strip_prefix("/api/") {
            let (id, revision, is_tree) = match rest.split_once("/revision/") {
                Some((id, revision)) => (id, revision, false),
                None => rest.split_once("/tree/").map(|(id, revision)| (id, revision, true))?,
            };
            let repository = self.repositories.get(id)?;
            let Some((commit, contents)) = repository.at(revision) else {
                return Some(Response::error(404, "RevisionNotFound", "Invalid rev id"));
            };
            let described: Vec<Value> =
                contents.iter().map(|(path, bytes)| self.describe(path, bytes, is_tree)).collect();
            let body = if is_tree {
                Value::Array(described)
            } else {
                let id = id.split_once('/')?.1;
                json!({"id": id, "sha": commit, "private": false, "gated": false, "siblings": described})
            };
            return Some(Response {
                status: 200,
                headers: vec![("Content-Type", "application/json".into())],
                body: body.to_string().into_bytes(),
            });
        }
        let (id, rest) = path.trim_start_matches('/').split_once("/resolve/")?;
        let id = if id.starts_with("datasets/") { id.to_owned() } else { format!("models/{id}") };
        let repository = self.repositories.get(&id)?;
        let (revision, file) = rest.split_once('/')?;
        let Some((commit, contents)) = repository.at(revision) else {
            return Some(Response::error(404, "RevisionNotFound", "Invalid rev id"));
        };
        let Some(bytes) = contents.get(file) else {
            let mut absent = Response::error(404, "EntryNotFound", "Entry not found");
            absent.headers.push(("X-Repo-Commit", commit.to_owned()));
            return Some(absent);
        };
        let mut headers = vec![("X-Repo-Commit", commit.to_owned())];
        if !is_large(file) {
            headers.push(("ETag", format!("\"{}\"", git_hash(bytes))));
            return Some(Response { status: 200, headers, body: bytes.clone() });
        }
        let hash = sha256(bytes);
        headers.push(("X-Linked-Etag", format!("\"{hash}\"")));
        headers.push(("X-Linked-Size", bytes.len().to_string()));
        headers.push(("ETag", "\"of-the-redirect\"".into()));
        headers.push(("Location", format!("{files}/blob/{hash}?signature=of-a-moment")));
        Some(Response { status: 302, headers, body: Vec::new() })
    }

    /// A file in a description of a repository, or in a listing of its tree.
    fn describe(&self, path: &str, bytes: &[u8], is_tree: bool) -> Value {
        let name = if is_tree { "path" } else { "rfilename" };
        if !self.described {
            return json!({ name: path });
        }
        let id = if is_tree { "oid" } else { "blobId" };
        let hash = if is_tree { "oid" } else { "sha256" };
        let mut file = json!({ name: path, "size": bytes.len(), id: git_hash(bytes) });
        if is_tree {
            file["type"] = "file".into();
        }
        if is_large(path) {
            file["lfs"] = json!({ hash: sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
        }
        file
    }

    fn blob(&self, hash: &str) -> Response {
        let commits = self.repositories.values().flat_map(|repository| repository.commits.values());
        match commits.flat_map(BTreeMap::values).find(|bytes| sha256(bytes) == hash) {
            Some(bytes) => {
                let headers = vec![("ETag", "\"of-the-storage\"".into())];
                Response { status: 200, headers, body: bytes.clone() }
            }
            None => Response::error(404, "", ""),
        }
    }
}

impl Repository {
    fn at(&self, revision: &str) -> Option<(&str, &BTreeMap<String, Vec<u8>>)> {
        let commit = self.branches.get(revision).map_or(revision, String::as_str);
        self.commits.get_key_value(commit).map(|(commit, files)| (commit.as_str(), files))
    }
}

impl Response {
    fn error(status: u16, code: &'static str, message: &str) -> Self {
        let mut headers = vec![("X-Error-Message", message.to_owned())];
        if !code.is_empty() {
            headers.push(("X-Error-Code", code.into()));
        }
        Self { status, headers, body: b"error".to_vec() }
    }

    fn send(
        mut self,
        mut stream: &TcpStream,
        request: &Request,
        fault: Option<Fault>,
    ) -> std::io::Result<()> {
        let range = request.range.as_deref().filter(|_| fault != Some(Fault::IgnoreRange));
        let mut announced = 0;
        match &fault {
            Some(Fault::WrongBytes) => self.body.iter_mut().for_each(|byte| *byte ^= 1),
            Some(Fault::Longer(more)) => self.body.extend(vec![b'x'; *more]),
            Some(Fault::Shorter(less)) => self.body.truncate(self.body.len() - less),
            Some(Fault::Announce(more)) => announced = *more,
            Some(Fault::Status(status, code, more)) => {
                self = Self::error(*status, code, "as the test has it");
                if let Some((name, value)) = more.split_once(": ") {
                    self.headers.push((name, value.into()));
                }
            }
            Some(Fault::Redirect(status, to)) => {
                self = Self {
                    status: *status,
                    headers: vec![("Location", to.clone())],
                    body: Vec::new(),
                };
            }
            _ => {}
        }
        let start: Option<usize> = range
            .and_then(|range| range.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok());
        if let Some(start) = start.filter(|_| self.status == 200) {
            let length: usize = self.body.len();
            if start >= length {
                self = Self { status: 416, headers: Vec::new(), body: Vec::new() };
            } else {
                self.status = 206;
                self.headers
                    .push(("Content-Range", format!("bytes {start}-{}/{length}", length - 1)));
                self.body.drain(..start);
            }
        }
        let mut head = format!("HTTP/1.1 {} x\r\nConnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n"); // A String takes everything.
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n", self.body.len() + announced);
        stream.write_all(head.as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        match fault {
            Some(Fault::Drop(count)) => {
                stream.write_all(&self.body[..count.min(self.body.len())])?;
                stream.flush()
            }
            Some(Fault::Silence(count, rest)) => {
                stream.write_all(&self.body[..count.min(self.body.len())])?;
                std::thread::sleep(rest);
                Ok(())
            }
            Some(Fault::Slow(piece, rest)) => self.body.chunks(piece).try_for_each(|piece| {
                std::thread::sleep(rest);
                stream.write_all(piece)
            }),
            _ => stream.write_all(&self.body),
        }
    }
}

fn read_request(stream: &TcpStream, to_files: bool) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { method, path, authorization: None, range: None, to_files };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(request);
        }
        let (name, value) = line.split_once(':')?;
        let value = Some(value.trim().to_owned());
        match name.to_lowercase().as_str() {
            "authorization" => request.authorization = value,
            "range" => request.range = value,
            _ => {}
        }
    }
    None
}

/// What the hub keeps apart from small files.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".parquet")
}

fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn git_hash(bytes: &[u8]) -> String {
    let mut hash = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hash.update(bytes);
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // A String takes everything.
        text
    })
}

/// A path without the escapes of addresses.
fn decoded(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), path.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.get(..2)).flatten();
        let code =
            escaped.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
