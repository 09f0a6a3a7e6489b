//! What kernels take, by the device's own clock.

use crate::Error;
use crate::error::failed;
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::io::Write;

/// Set, times are taken, and told when the device is closed.
const VARIABLE: &str = "QFT_KERNEL_TIMES";
/// Launches whose times are read together: reading waits for the device.
const PENDING: usize = 4096;

/// Times of launches.
pub(super) struct Times {
    pending: Vec<Timed>,
    spare: Vec<sys::CUevent>,
    sums: HashMap<&'static str, Sum>,
}

/// A launch between two events.
pub(super) struct Timed {
    kernel: &'static str,
    start: sys::CUevent,
    end: sys::CUevent,
}

/// All launches of a kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    launches: u64,
    milliseconds: f64,
}

impl Times {
    /// Where the environment asks for them.
    pub(super) fn if_asked() -> Option<Self> {
        std::env::var_os(VARIABLE)?;
        Some(Self { pending: Vec::new(), spare: Vec::new(), sums: HashMap::new() })
    }

    fn event(&mut self) -> Result<sys::CUevent, Error> {
        match self.spare.pop() {
            Some(event) => Ok(event),
            None => result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(failed("cuEventCreate")),
        }
    }

    /// Before a launch on `stream`, whose context is bound.
    pub(super) fn begin(
        &mut self,
        kernel: &'static str,
        stream: sys::CUstream,
    ) -> Result<Timed, Error> {
        let timed = Timed { kernel, start: self.event()?, end: self.event()? };
        // SAFETY: event and stream are of the bound context, and neither is destroyed.
        unsafe { result::event::record(timed.start, stream) }.map_err(failed("cuEventRecord"))?;
        Ok(timed)
    }

    /// After the launch.
    pub(super) fn end(&mut self, timed: Timed, stream: sys::CUstream) -> Result<(), Error> {
        // SAFETY: as at the beginning.
        unsafe { result::event::record(timed.end, stream) }.map_err(failed("cuEventRecord"))?;
        self.pending.push(timed);
        if self.pending.len() < PENDING {
            return Ok(());
        }
        self.read()
    }

    /// Waits for the launches that are pending, and adds their times.
    fn read(&mut self) -> Result<(), Error> {
        for Timed { kernel, start, end } in std::mem::take(&mut self.pending) {
            // SAFETY: both were recorded on the same stream, and neither is destroyed.
            let milliseconds = unsafe {
                result::event::synchronize(end).map_err(failed("cuEventSynchronize"))?;
                result::event::elapsed(start, end).map_err(failed("cuEventElapsedTime"))?
            };
            let sum = self.sums.entry(kernel).or_default();
            sum.launches += 1;
            sum.milliseconds += f64::from(milliseconds);
            self.spare.extend([start, end]);
        }
        Ok(())
    }

    /// Writes them to standard error, those of the most time first.
    pub(super) fn tell(mut self) {
        if let Err(error) = self.read() {
            tracing::warn!("{VARIABLE}: {error}");
        }
        // Nobody may be there to read it.
        let _ = std::io::stderr().write_all(table(&self.sums).as_bytes());
    }
}

fn table(sums: &HashMap<&'static str, Sum>) -> String {
    let all: f64 = sums.values().map(|sum| sum.milliseconds).sum();
    let mut rows: Vec<_> = sums.iter().collect();
    rows.sort_by(|a, b| b.1.milliseconds.total_cmp(&a.1.milliseconds).then(a.0.cmp(b.0)));
    let mut text =
        format!("{:40} {:>9} {:>11} {:>9} {:>6}\n", "kernel", "launches", "ms", "us each", "%");
    for (kernel, Sum { launches, milliseconds }) in rows {
        let each = milliseconds * 1e3 / (*launches).max(1) as f64;
        let share = 100.0 * milliseconds / all.max(f64::MIN_POSITIVE);
        text += &format!("{kernel:40} {launches:9} {milliseconds:11.2} {each:9.1} {share:6.1}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_comes_first() {
        let sums = HashMap::from([
            ("rope_f32", Sum { launches: 4, milliseconds: 1.0 }),
            ("gemm", Sum { launches: 2, milliseconds: 3.0 }),
        ]);
        let text = table(&sums);
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["gemm", "2", "3.00", "1500.0", "75.0"]);
        assert_eq!(lines[2], ["rope_f32", "4", "1.00", "250.0", "25.0"]);
    }
}
