//! Processes that connections of TCP connect, one for each line between any two of them.

mod meeting;
mod wire;

use crate::ending::end_process;
use crate::launcher::{Master, token};
use crate::processes::{self, Line};
use crate::team::Started;
use crate::{Deadlines, Error, Launch, Team};
use meeting::{LINES, Met, Own};
use qft_tensor::{Communicator, TrafficCounter};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wire::{Peer, Wire};

/// How long those that were started here get to say what is wrong with them.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Values of which a round finds the largest.
const ROUND_VALUES: usize = 1 << 20;

/// A line to the other processes.
#[derive(Debug)]
pub(crate) struct Tcp {
    rank: usize,
    size: usize,
    host: String,
    wire: Mutex<Wire>,
    traffic: Arc<TrafficCounter>,
    /// The processes that this one has started.
    started: Option<Mutex<Started>>,
}

/// Meets those that were started with this process, where the launcher says.
///
/// Errors: [`Error::Meeting`], if they do not come or do not fit together.
pub(crate) fn join(
    launch: &Launch,
    deadlines: Deadlines,
    traffic: &Arc<TrafficCounter>,
) -> Result<[Tcp; LINES], Error> {
    let Launch { rank, size: Some(size), master: Some(Master { host, port }), .. } = launch else {
        return Err(Error::Meeting(
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT are not set".to_owned(),
        ));
    };
    let own = own(*rank, *size, token()?, deadlines);
    let met = match rank {
        0 => meeting::lead(&meeting::listen(host, *port)?, &own, &mut || Ok(()))?,
        _ => meeting::follow(host, *port, &own)?,
    };
    connected(&own, met, deadlines, traffic)
}

/// Starts the others of a team and meets them; this process is the first.
///
/// Errors: [`Error::Team`] for one that does not start or ends, [`Error::Meeting`] for one that does not come.
pub(crate) fn start(
    team: &Team,
    deadlines: Deadlines,
    traffic: &Arc<TrafficCounter>,
) -> Result<[Tcp; LINES], Error> {
    let own = own(0, team.size(), team.token(), deadlines);
    let listener = meeting::listen(&Ipv4Addr::LOCALHOST.to_string(), 0)?;
    let port = listener.local_addr().map_err(|error| Error::Meeting(error.to_string()))?.port();
    let mut started = team.spawn(port)?;
    let met = meeting::lead(&listener, &own, &mut || started.check())?;
    let [mut line, beside] = connected(&own, met, deadlines, traffic)?;
    line.started = Some(Mutex::new(started));
    Ok([line, beside])
}

fn own(rank: usize, size: usize, token: u64, deadlines: Deadlines) -> Own {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Own { rank, size, token, host, deadline: Instant::now() + deadlines.first }
}

fn connected(
    own: &Own,
    met: Met,
    deadlines: Deadlines,
    traffic: &Arc<TrafficCounter>,
) -> Result<[Tcp; LINES], Error> {
    let Met { hosts, streams } = met;
    let line = |streams: Vec<Option<TcpStream>>| -> Result<Tcp, Error> {
        let peer = |(rank, stream): (usize, Option<TcpStream>)| -> io::Result<Option<Peer>> {
            let Some(stream) = stream else { return Ok(None) };
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Some(Peer { stream, name: format!("process {rank} on {}", hosts[rank]) }))
        };
        let peers = streams.into_iter().enumerate().map(peer).collect::<io::Result<Vec<_>>>();
        let peers = peers.map_err(|error| Error::Meeting(error.to_string()))?;
        Ok(Tcp {
            rank: own.rank,
            size: own.size,
            host: own.host.clone(),
            wire: Mutex::new(Wire::new(peers, deadlines)),
            traffic: Arc::clone(traffic),
            started: None,
        })
    };
    let [first, second] = streams;
    Ok([line(first)?, line(second)?])
}

impl Tcp {
    fn with_wire(
        &self,
        work: impl FnOnce(&mut Wire) -> Result<(), String>,
    ) -> Result<(), qft_tensor::Error> {
        processes::locked(self, &self.wire, work)
    }
}

impl Line for Tcp {
    fn about(&self) -> &str {
        "TCP"
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn lost(&self) -> Option<String> {
        self.wire.lock().ok()?.lost().map(str::to_owned)
    }

    fn finish(&self) -> Result<(), qft_tensor::Error> {
        self.max(&mut [0])?;
        if let Some(Ok(mut started)) = self.started.as_ref().map(Mutex::lock) {
            let patience = self.wire.lock().map(|wire| wire.patience()).unwrap_or_default();
            started.wait(Instant::now() + patience);
        }
        Ok(())
    }
}

impl Communicator for Tcp {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn max(&self, values: &mut [u32]) -> Result<(), qft_tensor::Error> {
        for values in values.chunks_mut(ROUND_VALUES) {
            let mut all = vec![0u32; values.len() * self.size];
            let width = size_of_val(values);
            let parts: Vec<_> =
                (0..self.size).map(|rank| rank * width..(rank + 1) * width).collect();
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut all);
            bytes[parts[self.rank].clone()].copy_from_slice(bytemuck::cast_slice(values));
            self.gather(bytes, &parts)?;
            for theirs in all.chunks(values.len()) {
                for (value, other) in values.iter_mut().zip(theirs) {
                    *value = (*value).max(*other);
                }
            }
        }
        Ok(())
    }

    fn gather(&self, bytes: &mut [u8], parts: &[Range<usize>]) -> Result<(), qft_tensor::Error> {
        assert_eq!(parts.len(), self.size, "a part for every process");
        let all: usize = parts.iter().map(Range::len).sum();
        let own = parts[self.rank].len();
        self.traffic.add_bytes(own * (self.size - 1), all - own);
        let mut into = apart(bytes, parts);
        let mine = &*std::mem::take(&mut into[self.rank]);
        self.with_wire(|wire| wire.exchange(&vec![mine; self.size], into))
    }

    fn exchange(
        &self,
        send: &[u8],
        send_parts: &[Range<usize>],
        receive: &mut [u8],
        receive_parts: &[Range<usize>],
    ) -> Result<(), qft_tensor::Error> {
        let parts = (send_parts.len(), receive_parts.len());
        assert_eq!(parts, (self.size, self.size), "a part for every process");
        let of_others = |parts: &[Range<usize>]| -> usize {
            parts.iter().map(Range::len).sum::<usize>() - parts[self.rank].len()
        };
        self.traffic.add_bytes(of_others(send_parts), of_others(receive_parts));
        let out: Vec<&[u8]> = send_parts.iter().map(|part| &send[part.clone()]).collect();
        let mut into = apart(receive, receive_parts);
        into[self.rank].copy_from_slice(out[self.rank]);
        self.with_wire(|wire| wire.exchange(&out, into))
    }

    fn abort(&self) -> ! {
        // If stdout is closed there is nobody to tell.
        let _ = io::stdout().flush();
        // The others hear of it at their next exchange; those that were started here may be stopped, and hear nothing.
        if let Some(Ok(mut started)) = self.started.as_ref().map(Mutex::try_lock) {
            thread::sleep(LAST_WORDS);
            started.kill();
        }
        end_process()
    }
}

/// The parts of `bytes`, which do not overlap.
fn apart<'a>(bytes: &'a mut [u8], parts: &[Range<usize>]) -> Vec<&'a mut [u8]> {
    let mut order: Vec<usize> = (0..parts.len()).filter(|&i| !parts[i].is_empty()).collect();
    order.sort_by_key(|&i| parts[i].start);
    let mut found: Vec<&mut [u8]> = parts.iter().map(|_| Default::default()).collect();
    let (mut rest, mut start) = (bytes, 0);
    for i in order {
        let Range { start: first, end } = parts[i];
        let (_, from) = rest.split_at_mut(first - start);
        let (part, behind) = from.split_at_mut(end - first);
        found[i] = part;
        (rest, start) = (behind, end);
    }
    found
}

#[cfg(test)]
mod tests;
