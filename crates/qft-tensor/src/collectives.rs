//! What the devices of a job's processes exchange of their own memory, without a way by their hosts.

use crate::buffer::RawBuffer;
use crate::{Error, Traffic};
use std::fmt;
use std::ops::Range;

/// Exchanges between the memories of the devices of all processes.
///
/// All processes start the same exchanges in the same order, and wait for them in an order that is the same for all. As with a
/// [`Communicator`](crate::Communicator), only bytes and whole numbers are exchanged.
pub trait Collectives: fmt::Debug + Send + Sync {
    /// Starts an exchange, behind all work that the device was given before. Its buffers are to be left as they are until it
    /// has been [waited](Self::wait) for.
    ///
    /// Errors: [`Error::Communication`].
    fn start(&self, exchange: Exchange<'_>) -> Result<Ticket, Error>;

    /// Waits for the end of an exchange. What the device is given afterwards comes behind it.
    ///
    /// Errors: [`Error::Communication`].
    fn wait(&self, ticket: Ticket) -> Result<(), Error>;

    /// Everything that this process has exchanged until now.
    fn traffic(&self) -> Traffic;
}

/// One exchange.
#[derive(Debug)]
pub enum Exchange<'a> {
    /// Sets each of the first numbers, u32 or floats that are not negative, to the largest that any process has in its place.
    Max {
        /// The numbers.
        values: &'a mut RawBuffer,
        /// How many.
        len: usize,
    },
    /// Sums of whole numbers, modulo 2³²: every process gets those of its part.
    Sum {
        /// i32 `[size, len]`: what this process adds to the part of each.
        shares: &'a RawBuffer,
        /// i32 `[len]`: the sums of this process's part.
        sums: &'a mut RawBuffer,
        /// Numbers of a part.
        len: usize,
    },
    /// Gives every process the whole of `bytes`, of which process `r` brings the part `parts[r]`.
    Gather {
        /// Room for all.
        bytes: &'a mut RawBuffer,
        /// They do not overlap.
        parts: &'a [Range<usize>],
    },
}

/// An exchange that was started.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// An exchange that was started, and the buffers that it has until its end.
#[derive(Debug)]
pub struct UnderWay<B> {
    ticket: Ticket,
    buffers: B,
}

impl<B> UnderWay<B> {
    /// Starts an exchange of `buffers`.
    ///
    /// Errors: those of [`Collectives::start`].
    pub fn start(
        collectives: &dyn Collectives,
        mut buffers: B,
        exchange: impl FnOnce(&mut B) -> Exchange<'_>,
    ) -> Result<Self, Error> {
        let ticket = collectives.start(exchange(&mut buffers))?;
        Ok(Self { ticket, buffers })
    }

    /// The buffers, when it has ended.
    ///
    /// Errors: those of [`Collectives::wait`].
    pub fn wait(self, collectives: &dyn Collectives) -> Result<B, Error> {
        collectives.wait(self.ticket)?;
        Ok(self.buffers)
    }
}

/// An exchange from its start to its end.
///
/// Errors: those of [`Collectives::start`] and [`Collectives::wait`].
pub fn exchange(collectives: &dyn Collectives, exchange: Exchange<'_>) -> Result<(), Error> {
    let ticket = collectives.start(exchange)?;
    collectives.wait(ticket)
}
