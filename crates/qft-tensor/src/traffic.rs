//! What a process exchanges with others, and what that costs it.

use crate::Device;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes and times of exchanges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To other processes.
    pub sent_bytes: u64,
    /// From other processes.
    pub received_bytes: u64,
    /// How long exchanges were under way, one after the other.
    pub exchanged: Duration,
    /// How long this process waited for them, and did nothing else.
    pub waited: Duration,
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_bytes: self.received_bytes + other.received_bytes,
            exchanged: self.exchanged + other.exchanged,
            waited: self.waited + other.waited,
        }
    }
}

impl Traffic {
    /// Everything that this process has exchanged until now, from the memory of its device or by way of its host.
    pub fn of(device: &dyn Device) -> Self {
        let between_devices = device.collectives().map(|collectives| collectives.traffic());
        device.communicator().traffic() + between_devices.unwrap_or_default()
    }

    /// What came since it was `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            exchanged: self.exchanged.saturating_sub(earlier.exchanged),
            waited: self.waited.saturating_sub(earlier.waited),
        }
    }
}

/// Counts from several threads.
#[derive(Debug, Default)]
pub struct TrafficCounter {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    exchanged_ns: AtomicU64,
    waited_ns: AtomicU64,
}

impl TrafficCounter {
    /// Bytes went out and came in.
    pub fn add_bytes(&self, sent: usize, received: usize) {
        self.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
        self.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
    }

    /// An exchange took so long.
    pub fn add_exchanged(&self, time: Duration) {
        add(&self.exchanged_ns, time);
    }

    /// This process waited so long.
    pub fn add_waited(&self, time: Duration) {
        add(&self.waited_ns, time);
    }

    /// Everything until now.
    pub fn total(&self) -> Traffic {
        let bytes = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let time = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        Traffic {
            sent_bytes: bytes(&self.sent_bytes),
            received_bytes: bytes(&self.received_bytes),
            exchanged: time(&self.exchanged_ns),
            waited: time(&self.waited_ns),
        }
    }
}

fn add(counter: &AtomicU64, time: Duration) {
    // Five hundred years.
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    counter.fetch_add(nanoseconds, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_since_is_the_difference() {
        let counter = TrafficCounter::default();
        counter.add_bytes(10, 20);
        counter.add_waited(Duration::from_millis(5));
        let earlier = counter.total();
        counter.add_bytes(1, 2);
        counter.add_exchanged(Duration::from_millis(7));
        let since = counter.total().since(earlier);
        let exchanged = Duration::from_millis(7);
        assert_eq!(
            since,
            Traffic { sent_bytes: 1, received_bytes: 2, exchanged, ..Traffic::default() }
        );
    }
}
