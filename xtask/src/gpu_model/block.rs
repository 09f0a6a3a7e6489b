//! A block that runs a kernel, and what it takes.

use super::memory;
use super::program::{Program, SHARED_WINDOW, Special};
use super::recorder::Launched;
use super::resources::Counts;
use super::warp::{SECTOR_BYTES, WARP, Warp};
use anyhow::{Context, Result};
use qft_cuda::Arg;
use std::ops::Range;

/// What a block takes.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Until the last product of tensor cores of each warp, and since.
    pub(super) main: Counts,
    pub(super) tail: Counts,
    /// Memory that it touches, by argument.
    pub(super) touched: Vec<Touched>,
}

/// Memory behind an argument that a block reads and writes, each sector once.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    /// From the first byte to the last.
    pub(super) read: Option<Range<u64>>,
    pub(super) written: Option<Range<u64>>,
}

/// Where a warp runs.
pub(super) struct Surroundings<'a> {
    launched: &'a Launched,
    index: [u64; 2],
    shared: Vec<u8>,
    /// Sectors that were touched, twice their number and one more if written.
    sectors: Vec<u64>,
}

/// Runs block number `index` of a launch, in x before y.
pub(super) fn run(program: &Program, launched: &Launched, index: u64) -> Result<Taken> {
    let launch = launched.launch;
    let threads = launch.threads();
    let shared = program.static_shared_bytes.next_multiple_of(16) + u64::from(launch.shared_bytes);
    let columns = u64::from(launch.grid[0]);
    let mut around = Surroundings {
        launched,
        index: [index % columns, index / columns],
        shared: vec![0; shared as usize],
        sectors: Vec::new(),
    };
    let mut warps: Vec<_> = (0..threads.div_ceil(WARP as u64))
        .map(|index| Warp::new(program, index, threads))
        .collect();
    let mut running = vec![true; warps.len()];
    while running.contains(&true) {
        for (warp, running) in warps.iter_mut().zip(&mut running).filter(|(_, running)| **running) {
            *running = warp.run(program, &mut around).with_context(|| launched.kernel)?;
        }
    }
    let mut taken = Taken { touched: around.touched(), ..Taken::default() };
    for warp in warps {
        taken.main += warp.main;
        taken.tail += warp.tail;
    }
    Ok(taken)
}

impl Surroundings<'_> {
    pub(super) fn parameter(&self, number: usize) -> u64 {
        self.launched.args.get(number).map_or(0, |arg| u64::from_ne_bytes(arg.to_bytes()))
    }

    pub(super) fn special(&self, special: Special) -> u64 {
        match special {
            Special::Thread => 0,
            Special::Threads => self.launched.launch.threads(),
            Special::Block(axis) => self.index[axis],
            Special::Blocks(axis) => self.launched.launch.grid[axis].into(),
        }
    }

    fn shared(&mut self, address: u64, bytes: u64) -> Result<&mut [u8]> {
        let start = (address & (SHARED_WINDOW - 1)) as usize;
        self.shared
            .get_mut(start..start + bytes as usize)
            .with_context(|| format!("{bytes} bytes at {address:#x} of shared memory"))
    }

    pub(super) fn load_shared(&mut self, address: u64, bytes: u64) -> Result<u64> {
        let found = self.shared(address, bytes)?;
        Ok(found.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    pub(super) fn store_shared(&mut self, address: u64, bytes: u64, value: u64) -> Result<()> {
        let place = self.shared(address, bytes)?;
        place.copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
        Ok(())
    }

    pub(super) fn load_global(&self, address: u64, is_float: bool, bytes: u64) -> u64 {
        memory::read(&self.launched.known, address, is_float, bytes)
    }

    /// Notes that a sector of memory is read or written.
    pub(super) fn touch(&mut self, sector: u64, written: bool) {
        self.sectors.push(2 * sector + u64::from(written));
    }

    fn touched(&mut self) -> Vec<Touched> {
        self.sectors.sort_unstable();
        self.sectors.dedup();
        let mut touched = vec![Touched::default(); self.launched.args.len()];
        let mut pointers: Vec<_> = (self.launched.args.iter().enumerate())
            .filter_map(|(i, arg)| match arg {
                Arg::Ptr(address) if *address > 0 => Some((*address, i)),
                _ => None,
            })
            .collect();
        pointers.sort_unstable();
        let widen = |range: &mut Option<Range<u64>>, start: u64| {
            let end = start + SECTOR_BYTES;
            *range = Some(match range.take() {
                None => start..end,
                Some(range) => range.start.min(start)..range.end.max(end),
            });
        };
        for &sector in &self.sectors {
            let (start, written) = (sector / 2 * SECTOR_BYTES, sector % 2 == 1);
            // The last argument that begins before the end of the sector.
            let before = pointers.partition_point(|&(address, _)| address < start + SECTOR_BYTES);
            let Some(&(_, argument)) = before.checked_sub(1).and_then(|at| pointers.get(at)) else {
                continue;
            };
            let touched = &mut touched[argument];
            if written {
                touched.written_bytes += SECTOR_BYTES;
                widen(&mut touched.written, start);
            } else {
                touched.read_bytes += SECTOR_BYTES;
                widen(&mut touched.read, start);
            }
        }
        touched
    }
}
