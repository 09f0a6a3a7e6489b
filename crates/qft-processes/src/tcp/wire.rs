//! Bytes to and from all other processes at the same time, over a connection to each.

use crate::Deadlines;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Bytes that go in front of what is sent: the number of the exchange, and how many follow.
const HEADER_BYTES: usize = 16;

/// Bytes of one process that are taken before others are looked at.
const TURN_BYTES: usize = 1 << 20;

/// Another process.
#[derive(Debug)]
pub(super) struct Peer {
    /// The connection, which does not block.
    pub(super) stream: TcpStream,
    /// Its number and machine, in words.
    pub(super) name: String,
}

/// Connections to all other processes.
#[derive(Debug)]
pub(super) struct Wire {
    /// In the order of their numbers, without this one.
    peers: Vec<Option<Peer>>,
    deadlines: Deadlines,
    exchanges: u64,
    /// Why nothing can be exchanged any more.
    lost: Option<String>,
}

/// What is on its way from and to a process.
struct Flow<'a> {
    header: [u8; HEADER_BYTES],
    out: &'a [u8],
    /// Of header and bytes.
    sent: usize,
    received_header: [u8; HEADER_BYTES],
    into: &'a mut [u8],
    received: usize,
}

impl Wire {
    pub(super) fn new(peers: Vec<Option<Peer>>, deadlines: Deadlines) -> Self {
        Self { peers, deadlines, exchanges: 0, lost: None }
    }

    /// Why nothing can be exchanged any more, if so.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// How long it waits for another process.
    pub(super) fn patience(&self) -> Duration {
        if self.exchanges == 0 { self.deadlines.first } else { self.deadlines.others }
    }

    /// Sends `out[r]` to process `r`, and fills `into[r]` with what it sends; what this process has for itself is not looked at.
    ///
    /// Errors: why the job is lost, in words.
    pub(super) fn exchange(&mut self, out: &[&[u8]], into: Vec<&mut [u8]>) -> Result<(), String> {
        if let Some(lost) = &self.lost {
            return Err(format!("the job is lost since: {lost}"));
        }
        let number = self.exchanges;
        let both = out.iter().zip(into);
        let mut flows: Vec<_> = both.map(|(out, into)| Flow::new(number, out, into)).collect();
        let done = self.run(&mut flows);
        self.exchanges += 1;
        done.inspect_err(|message| self.lost = Some(message.clone()))
    }

    fn run(&self, flows: &mut [Flow<'_>]) -> Result<(), String> {
        let patience = self.patience();
        let mut last = Instant::now();
        loop {
            let mut moved = false;
            for (flow, peer) in flows.iter_mut().zip(&self.peers) {
                let Some(peer) = peer else { continue };
                moved |= flow.go_on(peer)?;
            }
            let under_way = flows.iter().zip(&self.peers);
            let mut waited_for = under_way
                .filter_map(|(flow, peer)| Some((flow, peer.as_ref()?)))
                .filter(|(flow, _)| !flow.is_done());
            let Some((_, first)) = waited_for.clone().next() else { return Ok(()) };
            if moved {
                last = Instant::now();
                continue;
            }
            let left = patience.saturating_sub(last.elapsed());
            if left.is_zero() {
                // One that is waited for, rather than one that does not listen.
                let (_, slow) =
                    waited_for.find(|(flow, _)| !flow.has_received()).unwrap_or((&flows[0], first));
                return Err(format!(
                    "{} has been waited for {} s: it hangs, is stopped, or cannot be reached",
                    slow.name,
                    patience.as_secs_f64()
                ));
            }
            let mut watched: Vec<_> = waited_for
                .map(|(flow, peer)| PollFd::new(&peer.stream, flow.waits_for()))
                .collect();
            match poll(&mut watched, Timespec::try_from(left).ok().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(format!("poll: {error}")),
            }
        }
    }
}

impl<'a> Flow<'a> {
    fn new(number: u64, out: &'a [u8], into: &'a mut [u8]) -> Self {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&number.to_le_bytes());
        header[8..].copy_from_slice(&(out.len() as u64).to_le_bytes());
        Self { header, out, sent: 0, received_header: [0; HEADER_BYTES], into, received: 0 }
    }

    fn has_sent(&self) -> bool {
        self.sent == HEADER_BYTES + self.out.len()
    }

    fn has_received(&self) -> bool {
        self.received == HEADER_BYTES + self.into.len()
    }

    fn is_done(&self) -> bool {
        self.has_sent() && self.has_received()
    }

    fn waits_for(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, !self.has_received());
        flags.set(PollFlags::OUT, !self.has_sent());
        flags
    }

    /// Sends and receives what can be without waiting; whether that was anything.
    ///
    /// Errors: the connection is cut, or the other process is at another exchange.
    fn go_on(&mut self, peer: &Peer) -> Result<bool, String> {
        Ok(self.send(peer)? | self.receive(peer)?)
    }

    fn send(&mut self, peer: &Peer) -> Result<bool, String> {
        let before = self.sent;
        while !self.has_sent() && self.sent - before < TURN_BYTES {
            let header = &self.header[self.sent.min(HEADER_BYTES)..];
            let bytes = &self.out[self.sent.saturating_sub(HEADER_BYTES)..];
            match (&peer.stream).write_vectored(&[IoSlice::new(header), IoSlice::new(bytes)]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(cut(peer, &error.to_string())),
            }
        }
        Ok(self.sent > before)
    }

    fn receive(&mut self, peer: &Peer) -> Result<bool, String> {
        let before = self.received;
        while !self.has_received() && self.received - before < TURN_BYTES {
            let in_header = self.received < HEADER_BYTES;
            let room = match self.received.checked_sub(HEADER_BYTES) {
                None => &mut self.received_header[self.received..],
                Some(start) => &mut self.into[start..],
            };
            match (&peer.stream).read(room) {
                Ok(0) => return Err(cut(peer, "it is closed")),
                Ok(count) => self.received += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(cut(peer, &error.to_string())),
            }
            if in_header && self.received == HEADER_BYTES {
                self.check(peer)?;
            }
        }
        Ok(self.received > before)
    }

    /// Whether what comes is what is waited for.
    fn check(&self, peer: &Peer) -> Result<(), String> {
        let mut expected = self.header;
        expected[8..].copy_from_slice(&(self.into.len() as u64).to_le_bytes());
        if self.received_header == expected {
            return Ok(());
        }
        Err(format!(
            "{} exchanges something else: it runs another program, or another version",
            peer.name
        ))
    }
}

fn cut(peer: &Peer, why: &str) -> String {
    format!("{} has ended, or cannot be reached ({why}); see what it has said last", peer.name)
}
