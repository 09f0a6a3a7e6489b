//! Exchanges between threads, with one more that does what MPI would.

use super::*;
use crate::Deadlines;
use crate::mpi::worker::{Answer, Request};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Small, so that few bytes need many rounds.
const PIECE: usize = 10;

/// Longer than any pause of a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// Does what all have asked for, as long as all ask.
fn stand_in(sides: &[(Receiver<Request>, Sender<Answer>)]) {
    loop {
        let mut operations = Vec::new();
        for (requests, _) in sides {
            match requests.recv() {
                Ok(Request::Operation(_, operation, _)) => operations.push(operation),
                _ => return,
            }
        }
        for to in 0..sides.len() {
            for from in 0..sides.len() {
                let Operation::Exchange { send, .. } = &operations[from] else { unreachable!() };
                let bytes = send.of(to).to_vec();
                let Operation::Exchange { receive, .. } = &mut operations[to] else {
                    unreachable!()
                };
                receive.of_mut(from).copy_from_slice(&bytes);
            }
        }
        for ((_, answers), operation) in sides.iter().zip(operations) {
            answers.send(Ok(Some(operation))).unwrap();
        }
    }
}

/// What `from` has for `to`.
fn message(from: usize, to: usize, lengths: &[[usize; 3]; 3]) -> Vec<u8> {
    (0..lengths[from][to]).map(|i| (i * 7 + from * 50 + to) as u8).collect()
}

/// The parts of messages that lie side by side.
fn side_by_side(messages: &[Vec<u8>]) -> Vec<Range<usize>> {
    let mut end = 0;
    let mut part = |message: &Vec<u8>| {
        end += message.len();
        end - message.len()..end
    };
    messages.iter().map(&mut part).collect()
}

fn exchange(rank: usize, line: &mut Line, lengths: &[[usize; 3]; 3]) {
    let out: Vec<_> = (0..3).map(|to| message(rank, to, lengths)).collect();
    let expected: Vec<_> = (0..3).map(|from| message(from, rank, lengths)).collect();
    let (send_parts, receive_parts) = (side_by_side(&out), side_by_side(&expected));
    let (send, expected) = (out.concat(), expected.concat());
    let mut receive = vec![0; expected.len()];
    let (send, parts) = (&send[..], (&send_parts[..], &receive_parts[..]));
    let exchange =
        Exchange { rank, piece: PIECE, send, send_parts: parts.0, receive_parts: parts.1 };
    exchange.run(line, &mut receive).unwrap();
    assert_eq!(receive, expected, "process {rank}, {lengths:?}");
}

/// Only two processes know of the long message; the third takes part in as many rounds, and what follows is not mixed up.
#[test]
fn all_take_part_in_the_rounds_of_the_longest() {
    let all = [
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[5, 95, 0], [3, 0, 1], [0, 0, 20]],
        [[0, 10, 11], [9, 500, 0], [30, 0, 0]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    ];
    thread::scope(|scope| {
        let mut sides = Vec::new();
        for rank in 0..3 {
            let (requests, hear_requests) = channel();
            let (say_answers, answers) = channel();
            sides.push((hear_requests, say_answers));
            let deadlines = Deadlines { first: PATIENT, others: PATIENT };
            scope.spawn(move || {
                let mut line = Line::new(0, requests, answers, deadlines);
                all.iter().for_each(|lengths| exchange(rank, &mut line, lengths));
            });
        }
        stand_in(&sides);
    });
}

#[test]
fn a_lost_job_stays_lost() {
    let (requests, hear_requests) = channel();
    let (say_answers, answers) = channel();
    let mut line = Line::new(0, requests, answers, Deadlines { first: PATIENT, others: PATIENT });
    let parts = [0..0, 0..1];
    let exchange =
        Exchange { rank: 0, piece: PIECE, send: &[1], send_parts: &parts, receive_parts: &parts };
    say_answers.send(Err("the cable is cut".to_owned())).unwrap();
    let error = exchange.run(&mut line, &mut [0]).unwrap_err();
    assert_eq!(error, "the cable is cut");
    let error = exchange.run(&mut line, &mut [0]).unwrap_err();
    assert_eq!(error, "the job is lost since: the cable is cut");
    drop((hear_requests, say_answers));
}

#[test]
fn nobody_waits_for_a_thread_that_is_gone_or_stuck() {
    let parts = [0..0, 0..1];
    let exchange =
        Exchange { rank: 0, piece: PIECE, send: &[1], send_parts: &parts, receive_parts: &parts };
    let short = Duration::from_millis(1);
    for (gone, text) in [
        (true, "the thread that owns MPI has ended"),
        (false, "the MPI library does not return from a call"),
    ] {
        let (requests, hear_requests) = channel();
        let (say_answers, answers) = channel();
        let kept = (!gone).then_some((hear_requests, say_answers));
        let mut line = Line::new(0, requests, answers, Deadlines { first: short, others: short });
        assert_eq!(exchange.run(&mut line, &mut [0]).unwrap_err(), text);
        drop(kept);
    }
}
