//! Processes that are threads, connected by TCP within this machine.

use super::*;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

/// Longer than any pause of a busy machine.
const DEADLINES: Deadlines =
    Deadlines { first: Duration::from_secs(60), others: Duration::from_secs(60) };

/// For one that hangs.
const SHORT: Deadlines = Deadlines { others: Duration::from_millis(400), ..DEADLINES };

/// Each of `size` threads does `work` with a line.
fn team<T: Send>(size: usize, work: impl Fn(Tcp) -> T + Sync) -> Vec<T> {
    team_with(DEADLINES, size, work)
}

fn team_with<T: Send>(deadlines: Deadlines, size: usize, work: impl Fn(Tcp) -> T + Sync) -> Vec<T> {
    let listener = meeting::listen("127.0.0.1", 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    let meet = |rank| {
        let own = own(rank, size, 7, deadlines);
        let met = match rank {
            0 => meeting::lead(&listener, &own, &mut || Ok(())),
            _ => meeting::follow("localhost", port, &own),
        };
        let [line, _beside] = connected(&own, met.unwrap(), deadlines, &Arc::default()).unwrap();
        work(line)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || meet(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn everybody_meets_everybody() {
    for size in 2..=5 {
        let got = team(size, |line| {
            let mut values = vec![line.rank() as u32, u32::MAX - line.rank() as u32, 5];
            line.max(&mut values).unwrap();
            // Of different lengths, with the last part first.
            let parts: Vec<_> =
                (0..size).map(|rank| 10 * (size - rank)..10 * (size - rank) + rank).collect();
            let mut bytes = vec![0; 10 * size + 20];
            bytes[parts[line.rank()].clone()].fill(line.rank() as u8);
            line.gather(&mut bytes, &parts).unwrap();
            for (rank, part) in parts.iter().enumerate() {
                assert!(bytes[part.clone()].iter().all(|&byte| byte == rank as u8));
            }
            line.finish().unwrap();
            values
        });
        assert_eq!(got, vec![vec![size as u32 - 1, u32::MAX, 5]; size]);
    }
}

#[test]
fn more_than_connections_hold_goes_both_ways() {
    let bytes = 9_000_000;
    team(3, |line| {
        let parts: Vec<_> = (0..3).map(|rank| rank * bytes..(rank + 1) * bytes).collect();
        let send: Vec<u8> = (0..3 * bytes).map(|i| (i / bytes * 3 + line.rank()) as u8).collect();
        let mut receive = vec![0; 3 * bytes];
        line.exchange(&send, &parts, &mut receive, &parts).unwrap();
        let expected = |i: usize| (line.rank() * 3 + i / bytes) as u8;
        assert!(receive.iter().enumerate().all(|(i, &byte)| byte == expected(i)));
        let traffic = line.traffic.total();
        assert_eq!((traffic.sent_bytes, traffic.received_bytes), (18_000_000, 18_000_000));
        line.finish().unwrap();
    });
}

#[test]
fn who_leaves_or_hangs_is_named_and_nothing_follows() {
    for hangs in [false, true] {
        let deadlines = if hangs { SHORT } else { DEADLINES };
        let errors = team_with(deadlines, 2, |line| {
            line.max(&mut [0]).unwrap();
            if line.rank() == 1 {
                if hangs {
                    thread::sleep(3 * SHORT.others);
                }
                return None;
            }
            let error = line.max(&mut [0]).unwrap_err().to_string();
            let later = line.max(&mut [0]).unwrap_err().to_string();
            assert!(later.contains("the job is lost since"), "{later}");
            Some(error)
        });
        let error = errors[0].as_ref().unwrap();
        let told = if hangs { "has been waited for 0.4 s" } else { "has ended" };
        assert!(error.contains("process 1 on ") && error.contains(told), "{error}");
    }
}

#[test]
fn another_exchange_is_not_taken_for_this_one() {
    let outcomes = team(2, |line| {
        let last = 6 + line.rank();
        line.gather(&mut [0; 7][..last], &[0..3, 3..last]).map_err(|error| error.to_string())
    });
    // The second sends more than the first expects; what it gets itself is as it should be.
    let error = outcomes[0].as_ref().unwrap_err();
    assert!(error.contains("process 1 on ") && error.contains("something else"), "{error}");
}

const SOON: Deadlines = Deadlines { first: Duration::from_millis(600), ..DEADLINES };

fn led(listener: &TcpListener, size: usize, deadlines: Deadlines) -> String {
    let own = own(0, size, 7, deadlines);
    meeting::lead(listener, &own, &mut || Ok(())).map(|_| ()).unwrap_err().to_string()
}

fn followed(listener: &TcpListener, rank: usize, size: usize, token: u64) -> String {
    let (own, port) = (own(rank, size, token, SOON), listener.local_addr().unwrap().port());
    meeting::follow("127.0.0.1", port, &own).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn strangers_are_left_out() {
    let listener = meeting::listen("127.0.0.1", 0).unwrap();
    // A scan of ports, a browser, and a process of another job.
    let long = [&b"GET / HTTP/1.1\r\nUser-Agent: "[..], &[b'x'; 200]].concat();
    for text in [&b""[..], &b"GET"[..], &long] {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.write_all(text).unwrap();
    }
    thread::scope(|scope| {
        let other_job = scope.spawn(|| followed(&listener, 1, 2, 8));
        let error = led(&listener, 3, SOON);
        assert!(error.contains("did not come in time: 1, 2"), "{error}");
        let error = other_job.join().unwrap();
        assert!(error.contains("a process has left"), "{error}");
    });
}

#[test]
fn what_does_not_fit_is_named_to_both() {
    for (rank, size, told) in [
        (1, 3, "process 1 is one of 3, and process 0 of 2: WORLD_SIZE has to be the same for all"),
        (0, 2, "process 0 has come where 1 to 1 were expected"),
    ] {
        let listener = meeting::listen("127.0.0.1", 0).unwrap();
        thread::scope(|scope| {
            let leader = scope.spawn(|| led(&listener, 2, DEADLINES));
            assert_eq!(followed(&listener, rank, size, 7), told);
            assert_eq!(leader.join().unwrap(), told);
        });
    }
}

#[test]
fn where_nobody_listens_or_answers_is_named() {
    let listener = meeting::listen("127.0.0.1", 0).unwrap();
    let error = followed(&listener, 1, 2, 7);
    assert!(error.contains("process 0 has not said in time"), "{error}");
    let port = listener.local_addr().unwrap().port();
    let error = meeting::listen("127.0.0.1", port).unwrap_err().to_string();
    assert!(error.contains("give a free one as MASTER_PORT"), "{error}");
    drop(listener);
    let own = own(1, 2, 7, SOON);
    let error = meeting::follow("127.0.0.1", port, &own).unwrap_err().to_string();
    assert!(error.contains(&format!("process 0 does not answer at 127.0.0.1:{port}")), "{error}");
}
