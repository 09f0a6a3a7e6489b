//! Signals that ask a run to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Catches the signals that ask a run to stop: Ctrl-C, a termination, a lost terminal, those of schedulers before the time is
/// over (SIGUSR1, SIGUSR2, SIGXCPU).
///
/// The first one sets a flag, and a line on stderr says so; one after that line ends the process at once, whatever the
/// process is doing. Signals that come together count as one: `timeout` sends its signal to a process and to its group,
/// and a shell that loses its terminal passes on what the kernel sends too.
#[derive(Debug)]
pub struct StopSignal {
    flag: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl StopSignal {
    /// Catches them from now on, for as long as the process lives; `flag` is set once one has come. Those that were ignored when it started, as `nohup`
    /// and shells without job control have it, stay ignored, where the system tells (Linux); elsewhere than on Unix
    /// nothing is caught.
    ///
    /// Errors: the system refuses a handler, a socket or a thread.
    pub fn install(flag: Arc<AtomicBool>) -> io::Result<Self> {
        let stop = Self { flag, number: Arc::default() };
        #[cfg(unix)]
        unix::install(&stop)?;
        Ok(stop)
    }

    /// The exit code of a run that a signal has ended, if one has come: 128 and its number, as shells have it.
    pub fn exit_code(&self) -> Option<u8> {
        // After the flag, which is set last.
        let came = self.flag.load(Ordering::SeqCst);
        came.then(|| code(self.number.load(Ordering::SeqCst)))
    }
}

/// From now on Ctrl-C sets `flag` instead of ending the process; elsewhere than on Unix it still ends it.
///
/// Errors: the system refuses a handler.
pub fn interrupts(flag: &Arc<AtomicBool>) -> io::Result<()> {
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(flag))?;
    #[cfg(not(unix))]
    let _ = flag;
    Ok(())
}

/// The exit code for the signal `number`.
fn code(number: usize) -> u8 {
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

#[cfg(unix)]
mod unix {
    use super::{StopSignal, code};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
    use signal_hook::{flag, low_level::pipe};
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    /// What people and schedulers ask to stop by: Slurm's `--signal` sends what it is told, and a limit of processor time its own.
    const CAUGHT: [i32; 6] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU];

    /// Signals within this time are the same.
    const TOGETHER: Duration = Duration::from_millis(300);

    pub(super) fn install(stop: &StopSignal) -> io::Result<()> {
        let ignored = std::fs::read_to_string("/proc/self/status").map_or(0, |s| ignored(&s));
        let armed = Arc::new(AtomicBool::new(false));
        let (come, wake) = UnixStream::pair()?;
        let (arm, number) = (Arc::clone(&armed), Arc::clone(&stop.number));
        // Before there is a handler: without the thread, no second signal would end the process.
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || warn(come, &number, &arm))?;
        for signal in CAUGHT {
            if ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            let number = signal.unsigned_abs() as usize;
            // The handler does these in this order, in whatever the process is caught: the end first, for it to work
            // when all else hangs; the flag once there is a number.
            flag::register_conditional_shutdown(signal, code(number).into(), Arc::clone(&armed))?;
            flag::register_usize(signal, Arc::clone(&stop.number), number)?;
            flag::register(signal, Arc::clone(&stop.flag))?;
            pipe::register(signal, wake.try_clone()?)?;
        }
        Ok(())
    }

    /// Waits for a signal, lets the next one end the process, and says so.
    fn warn(mut come: UnixStream, number: &AtomicUsize, armed: &AtomicBool) {
        // Nobody writes only if no signal is caught.
        if come.read_exact(&mut [0]).is_err() {
            return;
        }
        tracing::info!("asked to stop by signal {}", number.load(Ordering::SeqCst));
        std::thread::sleep(TOGETHER);
        armed.store(true, Ordering::SeqCst);
        // If nobody listens, nothing is lost.
        let _ = writeln!(
            io::stderr(),
            "\nstopping; a checkpoint will be saved (again to stop at once)"
        );
    }

    /// The signals that a process ignores, from its `/proc/self/status`: the lowest bit is signal 1.
    fn ignored(status: &str) -> u64 {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn ignored_signals_are_read_from_the_status() {
            let bits = |numbers: &[i32]| numbers.iter().fold(0, |mask, n| mask | 1 << (n - 1));
            for (status, expected) in [
                ("Name:\tqft\nSigIgn:\t0000000000001001\nSigCgt:\t2\n", bits(&[SIGHUP, 13])),
                ("SigIgn:\t0000000000000006\n", bits(&[SIGINT, 3])),
                ("SigCgt:\t0000000000000001\n", 0),
                ("SigIgn:\tnothing\n", 0),
                ("SigIgn:\n", 0),
                ("", 0),
            ] {
                assert_eq!(ignored(status), expected, "{status:?}");
            }
        }

        #[test]
        fn an_exit_code_is_128_and_the_number_of_the_signal() {
            let stop = StopSignal { flag: Arc::default(), number: Arc::default() };
            assert_eq!(stop.exit_code(), None);
            for (signal, expected) in [(SIGHUP, 129), (SIGINT, 130), (SIGTERM, 143)] {
                stop.number.store(signal.unsigned_abs() as usize, Ordering::SeqCst);
                stop.flag.store(true, Ordering::SeqCst);
                assert_eq!(stop.exit_code(), Some(expected));
            }
        }
    }
}
