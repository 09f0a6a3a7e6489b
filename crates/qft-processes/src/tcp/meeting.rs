//! How processes find each other: all know where the first one listens, and it tells all where the others do.
//!
//! Two connections are made between any two of them, one for each line.

use crate::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// What a connection begins with, so that others are known by its absence.
const MAGIC: u64 = u64::from_le_bytes(*b"qft-tcp1");

/// Lines between processes.
pub(super) const LINES: usize = 2;

/// Bytes of a machine's name that are told.
const HOST_BYTES: usize = 64;

/// Bytes of a greeting.
const GREETING_BYTES: usize = 3 * 8 + 4 * 4 + HOST_BYTES;

/// Bytes of an answer at most: a line for each process.
const MAX_ANSWER_BYTES: u32 = 1 << 20;

/// A connection of somebody else is not waited for longer.
const STRANGERS_PATIENCE: Duration = Duration::from_secs(5);

/// How long one try to connect may take.
const TRY_FOR: Duration = Duration::from_secs(3);

/// Between two looks whether something has come, or two tries.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// This process among those that are to meet.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) rank: usize,
    pub(super) size: usize,
    /// What all say to be known.
    pub(super) token: u64,
    /// The name of this machine.
    pub(super) host: String,
    pub(super) deadline: Instant,
}

/// The processes that have met.
#[derive(Debug)]
pub(super) struct Met {
    /// The machine of each.
    pub(super) hosts: Vec<String>,
    /// For each line, the connections to the others in the order of their numbers.
    pub(super) streams: [Vec<Option<TcpStream>>; LINES],
}

/// What is said first over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Greeting {
    rank: usize,
    size: usize,
    line: usize,
    /// Where it listens for others.
    port: u16,
    host: String,
}

/// Where a process listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    address: SocketAddr,
    host: String,
}

/// A listener for processes that know this machine as `host`.
///
/// Errors: [`Error::Meeting`], for a port that is not free.
pub(super) fn listen(host: &str, port: u16) -> Result<TcpListener, Error> {
    let v6 = resolve(host, port).is_ok_and(|addresses| addresses[0].is_ipv6());
    let listener = TcpListener::bind((bound_to(host, v6), port));
    listener.map_err(|error| {
        Error::Meeting(format!(
            "process 0 cannot listen at port {port} of this machine: {error}; give a free one as MASTER_PORT"
        ))
    })
}

/// What to listen at: all of the machine, unless it is known by an address that nobody else can reach.
fn bound_to(host: &str, v6: bool) -> IpAddr {
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match (local, v6) {
        (true, false) => Ipv4Addr::LOCALHOST.into(),
        (true, true) => Ipv6Addr::LOCALHOST.into(),
        (false, false) => Ipv4Addr::UNSPECIFIED.into(),
        (false, true) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The first process: waits for the others, and tells all where they are. `check` is asked meanwhile whether they can come.
///
/// Errors: [`Error::Meeting`], if they do not fit together; [`Error::Slow`]; that of `check`.
pub(super) fn lead(
    listener: &TcpListener,
    own: &Own,
    check: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Met, Error> {
    let mut met = Met::alone(own);
    let mut places: Vec<Option<Place>> = vec![None; own.size];
    accept(listener, own, 1, &mut met, check, &mut |greeting, stream| {
        let address = SocketAddr::new(stream.peer_addr()?.ip(), greeting.port);
        places[greeting.rank] = Some(Place { address, host: greeting.host.clone() });
        Ok(())
    })?;
    let places: Vec<Place> = places.into_iter().flatten().collect();
    let told = places.iter().map(|Place { address, host }| format!("{address} {host}\n"));
    let answer = format!("{}\n{}", own.host, told.collect::<String>());
    for stream in met.streams[0].iter().flatten() {
        say_answer(stream, Ok(&answer)).map_err(|error| lost(&error))?;
    }
    let others = places.into_iter().map(|place| place.host);
    met.hosts = std::iter::once(own.host.clone()).chain(others).collect();
    Ok(met)
}

/// Another process: finds the first one at `port` of `host`, and the rest by what it says.
///
/// Errors: [`Error::Meeting`], if they do not fit together; [`Error::Slow`] if one does not come.
pub(super) fn follow(host: &str, port: u16, own: &Own) -> Result<Met, Error> {
    let mut met = Met::alone(own);
    let first = connect(own, || resolve(host, port)).map_err(|error| {
        Error::Meeting(format!(
            "process 0 does not answer at {host}:{port}, which MASTER_ADDR and MASTER_PORT say ({error}): it has not started, \
             or something is in between"
        ))
    })?;
    let master = first.peer_addr().map_err(|error| lost(&error))?;
    let listener = TcpListener::bind((bound_to(host, master.is_ipv6()), 0))
        .map_err(|error| Error::Meeting(format!("no port to listen at: {error}")))?;
    let port = listener.local_addr().map_err(|error| lost(&error))?.port();
    greet(&first, own, 0, port).map_err(|error| lost(&error))?;
    let second = connect(own, || Ok(vec![master])).map_err(|error| lost(&error))?;
    greet(&second, own, 1, port).map_err(|error| lost(&error))?;
    let answer = hear_answer(&first, own.deadline).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Meeting(
            "process 0 has not said in time where the others are: one of them has not started, or cannot be reached"
                .to_owned(),
        ),
        _ => lost(&error),
    })?;
    let (leader, places) = read_places(&answer.map_err(Error::Meeting)?, own.size, master.ip())
        .ok_or_else(|| Error::Meeting("what process 0 says is of another version".to_owned()))?;
    for (line, stream) in [first, second].into_iter().enumerate() {
        met.streams[line][0] = Some(stream);
    }
    met.hosts = vec![leader];
    for (i, place) in places.iter().enumerate() {
        met.hosts.push(place.host.clone());
        for line in 0..LINES {
            if i + 1 < own.rank {
                let stream = connect(own, || Ok(vec![place.address])).and_then(|stream| {
                    greet(&stream, own, line, 0)?;
                    Ok(stream)
                });
                let stream = stream.map_err(|error| {
                    Error::Meeting(format!(
                        "process {} on {} cannot be reached at {}: {error}",
                        i + 1,
                        place.host,
                        place.address
                    ))
                })?;
                met.streams[line][i + 1] = Some(stream);
            }
        }
    }
    accept(&listener, own, own.rank + 1, &mut met, &mut || Ok(()), &mut |_, _| Ok(()))?;
    Ok(met)
}

impl Met {
    fn alone(own: &Own) -> Self {
        let none = || (0..own.size).map(|_| None).collect();
        Self { hosts: Vec::new(), streams: [none(), none()] }
    }

    /// Whether all lines to the processes from `from` on are there.
    fn is_complete(&self, from: usize) -> bool {
        self.streams.iter().all(|line| line[from..].iter().all(Option::is_some))
    }
}

/// Takes all connections of the processes from `from` on; `come` hears of each.
fn accept(
    listener: &TcpListener,
    own: &Own,
    from: usize,
    met: &mut Met,
    check: &mut dyn FnMut() -> Result<(), Error>,
    come: &mut dyn FnMut(&Greeting, &TcpStream) -> io::Result<()>,
) -> Result<(), Error> {
    listener.set_nonblocking(true).map_err(|error| lost(&error))?;
    while !met.is_complete(from) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) => {
                check()?;
                if Instant::now() > own.deadline {
                    return Err(missing(met, from));
                }
                thread::sleep(LOOK_EVERY);
                continue;
            }
        };
        // Whoever knows no greeting came by chance.
        let Ok(Some(greeting)) = hear_greeting(&stream, own.token) else { continue };
        let refusal = own.refusal(&greeting, from).or_else(|| {
            let twice = met.streams[greeting.line][greeting.rank].is_some();
            twice.then(|| format!("process {} has come twice", greeting.rank))
        });
        if let Some(refusal) = refusal {
            // It ends in any case.
            let _ = say_answer(&stream, Err(&refusal));
            return Err(Error::Meeting(refusal));
        }
        come(&greeting, &stream).map_err(|error| lost(&error))?;
        met.streams[greeting.line][greeting.rank] = Some(stream);
    }
    Ok(())
}

impl Own {
    /// Why one that greets so cannot be one of these.
    fn refusal(&self, greeting: &Greeting, from: usize) -> Option<String> {
        let Greeting { rank, size, .. } = *greeting;
        if size != self.size {
            return Some(format!(
                "process {rank} is one of {size}, and process {} of {}: WORLD_SIZE has to be the same for all",
                self.rank, self.size
            ));
        }
        (rank < from || rank >= size)
            .then(|| format!("process {rank} has come where {from} to {} were expected", size - 1))
    }
}

fn missing(met: &Met, from: usize) -> Error {
    let absent =
        met.streams[0].iter().enumerate().skip(from).filter(|(_, stream)| stream.is_none());
    let absent: Vec<_> = absent.map(|(rank, _)| rank.to_string()).collect();
    Error::Meeting(format!("these processes did not come in time: {}", absent.join(", ")))
}

fn lost(error: &io::Error) -> Error {
    Error::Meeting(format!("a process has left while the others met: {error}"))
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = (host, port).to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(io::Error::new(ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// Connects with the first address that answers, for as long as the deadline lets it try.
fn connect(
    own: &Own,
    addresses: impl Fn() -> io::Result<Vec<SocketAddr>>,
) -> io::Result<TcpStream> {
    loop {
        let tried = addresses().and_then(|addresses| {
            let mut last = io::Error::from(ErrorKind::NotFound);
            for address in addresses {
                match TcpStream::connect_timeout(&address, TRY_FOR) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        match tried {
            Err(_) if Instant::now() < own.deadline => thread::sleep(LOOK_EVERY),
            tried => return tried,
        }
    }
}

fn greet(mut stream: &TcpStream, own: &Own, line: usize, port: u16) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(GREETING_BYTES);
    for word in [MAGIC, own.token, own.host.len().min(HOST_BYTES) as u64] {
        bytes.extend(word.to_le_bytes());
    }
    for number in [own.rank as u32, own.size as u32, line as u32, u32::from(port)] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(own.host.bytes().take(HOST_BYTES));
    bytes.resize(GREETING_BYTES, 0);
    stream.write_all(&bytes)
}

/// What a connection begins with; nothing, if it is not one of this job.
fn hear_greeting(mut stream: &TcpStream, token: u64) -> io::Result<Option<Greeting>> {
    // Listeners may hand on that they do not block.
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(STRANGERS_PATIENCE))?;
    let mut bytes = [0; GREETING_BYTES];
    stream.read_exact(&mut bytes)?;
    let (words, rest) = bytes.split_at(3 * 8);
    let mut words = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let (numbers, host) = rest.split_at(4 * 4);
    let mut numbers = numbers.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number));
    let mut word = || words.next().unwrap_or_default();
    let mut number = || numbers.next().unwrap_or_default() as usize;
    if (word(), word()) != (MAGIC, token) {
        return Ok(None);
    }
    let host = &host[..(word() as usize).min(HOST_BYTES)];
    let host = String::from_utf8_lossy(host).into_owned();
    let (rank, size, line) = (number(), number(), number());
    let Ok(port) = u16::try_from(number()) else { return Ok(None) };
    Ok((line < LINES).then_some(Greeting { rank, size, line, port, host }))
}

/// Where all are, or why not.
fn say_answer(mut stream: &TcpStream, answer: Result<&str, &str>) -> io::Result<()> {
    let (sign, text) = match answer {
        Ok(text) => (0u8, text),
        Err(text) => (1, text),
    };
    let length = (text.len() as u32).to_le_bytes();
    stream.write_all(&[&[sign][..], &length, text.as_bytes()].concat())
}

fn hear_answer(mut stream: &TcpStream, deadline: Instant) -> io::Result<Result<String, String>> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    stream.set_read_timeout(Some(left))?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [sign, length @ ..] = head;
    let length = u32::from_le_bytes(length);
    if length > MAX_ANSWER_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(if sign == 0 { Ok(text) } else { Err(text) })
}

/// The machine of the first process and the places of the others, for one that knows the first at `master`.
fn read_places(text: &str, size: usize, master: IpAddr) -> Option<(String, Vec<Place>)> {
    let (leader, text) = text.split_once('\n')?;
    let place = |line: &str| {
        let (address, host) = line.split_once(' ')?;
        let mut address: SocketAddr = address.parse().ok()?;
        if address.ip().is_loopback() {
            // It is on the first one's machine.
            address.set_ip(master);
        }
        Some(Place { address, host: host.to_owned() })
    };
    let places: Vec<_> = text.lines().map(place).collect::<Option<_>>()?;
    (places.len() + 1 == size).then(|| (leader.to_owned(), places))
}

#[cfg(test)]
mod tests;
