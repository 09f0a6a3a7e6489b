//! How often and after what time a request is made again.

use crate::client::{Asked, Client, Failure};
use crate::error::Error;
use crate::notice::{Notice, Watch};
use crate::settings::Retries;
use std::time::Duration;

/// Tries in a row that brought nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    retries: Retries,
    left: u32,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new(retries: Retries) -> Self {
        Self { retries, left: retries.attempts.saturating_sub(1), pause: retries.pause }
    }

    /// Waits before another try.
    ///
    /// Errors: there is no use in another, or there were enough.
    pub(crate) fn after(
        &mut self,
        failure: Failure,
        client: &Client,
        asked: &Asked<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let (why, status, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { why, status, wait } => (why, status, wait),
        };
        let Some(pause) = self.next(wait) else {
            return Err(client.given_up(asked, why, status));
        };
        watch(&Notice::Again { what: &asked.to_string(), why: &why, pause });
        std::thread::sleep(pause);
        Ok(())
    }

    /// What to wait, unless it is enough. A server that asks for a wait gets it, up to the longest.
    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let own = self.pause;
        self.pause *= 2;
        Some(asked.unwrap_or(own).max(own).min(self.retries.longest))
    }
}

/// What `ask` brings at last.
///
/// Errors: those that no other try can help; [`Error::Unreachable`] and [`Error::Failing`] after enough of them.
pub(crate) fn with_patience<T>(
    client: &Client,
    asked: &Asked<'_>,
    retries: Retries,
    watch: &mut Watch<'_>,
    mut ask: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Error> {
    let mut patience = Patience::new(retries);
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(failure) => patience.after(failure, client, asked, watch)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let second = Duration::from_secs(1);
        let retries = Retries { attempts: 4, pause: second, longest: 3 * second, silence: second };
        let mut patience = Patience::new(retries);
        let waits: Vec<_> = std::iter::from_fn(|| patience.next(None)).collect();
        assert_eq!(waits, [second, 2 * second, 3 * second]);
        let mut patience = Patience::new(retries);
        assert_eq!(patience.next(Some(2 * second)), Some(2 * second), "as the server asks");
        assert_eq!(patience.next(Some(90 * second)), Some(3 * second), "the longest");
        assert_eq!(patience.next(Some(Duration::ZERO)), Some(3 * second), "its own");
        assert_eq!(patience.next(None), None);
    }
}
