//! What a launch takes: some of its blocks are run, and stand for all.

use super::block::{self, Taken, Touched};
use super::program::{Program, program};
use super::recorder::{Launched, Request};
use super::resources::Counts;
use anyhow::{Context, Result};
use qft_cuda::{Arg, Launch, ptx};
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;

/// Blocks of a launch that are run, evenly spread; beside them the first and the last, for the memory that all touch.
const SAMPLES: u64 = 4;

/// Arguments that decide on random bits, or on rows that are all alike: launches that differ in nothing else take the same.
const STREAMS: [(&str, &[usize]); 4] = [
    ("quantize_rows_f32_i8", &[7, 8, 9, 10, 11]),
    ("quantize_cols_f32_i8", &[9, 10, 11, 12, 13]),
    ("lion_update_f32_i8", &[16, 28, 30, 31, 32, 33]),
    ("adamw_update_f32_i8", &[16, 28, 30, 31, 32, 33]),
];

/// A launch, or a copy that the driver does by itself.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) kernel: &'static str,
    pub(super) launch: Launch,
    pub(super) blocks: f64,
    /// Of a block, on the average.
    pub(super) main: Counts,
    pub(super) tail: Counts,
    /// By argument.
    pub(super) traffic: Vec<Traffic>,
    /// Whether the end of a block runs beside the beginning of the next, however few fit a multiprocessor.
    pub(super) overlapped: bool,
}

/// Memory behind one argument.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Traffic {
    pub(super) address: u64,
    /// Bytes of the device's memory: of what several blocks read, once.
    pub(super) read_bytes: f64,
    pub(super) written_bytes: f64,
    /// Bytes between a multiprocessor and the second cache, of a block on the average.
    pub(super) block_read_bytes: f64,
    pub(super) block_written_bytes: f64,
}

impl Traffic {
    /// The same with another size of its elements.
    #[must_use]
    pub(super) fn times(self, factor: f64) -> Self {
        Self {
            read_bytes: self.read_bytes * factor,
            written_bytes: self.written_bytes * factor,
            block_read_bytes: self.block_read_bytes * factor,
            block_written_bytes: self.block_written_bytes * factor,
            ..self
        }
    }
}

impl Work {
    /// What moves bytes and computes nothing.
    pub(super) fn of_traffic(kernel: &'static str, traffic: Vec<Traffic>) -> Self {
        Self {
            kernel,
            launch: Launch::blocks(1, 1),
            blocks: 1.0,
            main: Counts::default(),
            tail: Counts::default(),
            traffic,
            overlapped: false,
        }
    }
}

/// Runs launches, and remembers what like ones took.
#[derive(Default)]
pub(super) struct Runner {
    programs: HashMap<&'static str, Rc<Program>>,
    taken: HashMap<u64, Work>,
}

impl Runner {
    /// What all requests take, in order.
    pub(super) fn work(&mut self, requests: &[Request]) -> Result<Vec<Work>> {
        requests
            .iter()
            .map(|request| match request {
                Request::Launch(launched) => self.launch(launched),
                Request::Copy { to, from, bytes } => Ok(moved("copy", *to, Some(*from), *bytes)),
                Request::Zero { to, bytes } => Ok(moved("zero", *to, None, *bytes)),
            })
            .collect()
    }

    fn launch(&mut self, launched: &Launched) -> Result<Work> {
        let key = key(launched);
        let mut work = match self.taken.entry(key) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(place) => {
                let program = match self.programs.entry(launched.kernel) {
                    Entry::Occupied(known) => Rc::clone(known.get()),
                    Entry::Vacant(place) => {
                        Rc::clone(place.insert(Rc::new(read(launched.kernel)?)))
                    }
                };
                place.insert(run(&program, launched)?).clone()
            }
        };
        for (traffic, arg) in work.traffic.iter_mut().zip(&launched.args) {
            traffic.address = if let Arg::Ptr(address) = arg { *address } else { 0 };
        }
        Ok(work)
    }
}

/// The program of a kernel that is embedded in qft-cuda.
pub(super) fn read(kernel: &str) -> Result<Program> {
    let entry = ptx::entry(kernel)?;
    program(ptx::MODULES[entry.module].1, kernel)
}

/// What the driver moves without a kernel.
fn moved(kernel: &'static str, to: u64, from: Option<u64>, bytes: u64) -> Work {
    let bytes = bytes as f64;
    let written = Traffic { address: to, written_bytes: bytes, ..Traffic::default() };
    let read = from.map(|address| Traffic { address, read_bytes: bytes, ..Traffic::default() });
    let work = Work::of_traffic(kernel, std::iter::once(written).chain(read).collect());
    Work { overlapped: true, ..work }
}

/// The same for launches that take the same.
fn key(launched: &Launched) -> u64 {
    let Launched { kernel, launch, args, known } = launched;
    let mut hasher = DefaultHasher::new();
    (kernel, launch.grid, launch.block, launch.shared_bytes).hash(&mut hasher);
    let ignored = STREAMS.iter().find(|(prefix, _)| kernel.starts_with(prefix));
    for (i, arg) in args.iter().enumerate() {
        match arg {
            Arg::Ptr(address) => (*address == 0, address % 128).hash(&mut hasher),
            _ if ignored.is_some_and(|(_, list)| list.contains(&i)) => {}
            scalar => scalar.to_bytes().hash(&mut hasher),
        }
    }
    known.iter().for_each(|known| known.bytes.hash(&mut hasher));
    hasher.finish()
}

fn run(program: &Program, launched: &Launched) -> Result<Work> {
    let launch = launched.launch;
    let blocks: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
    let samples = SAMPLES.min(blocks);
    let middle = |i: u64| (2 * i + 1) * blocks / (2 * samples);
    let sampled: Vec<_> = (0..samples).map(middle).collect();
    let run = |index| {
        block::run(program, launched, index)
            .with_context(|| format!("{} {launch}, block {index}", launched.kernel))
    };
    let taken = sampled.iter().map(|&index| run(index)).collect::<Result<Vec<_>>>()?;
    let mut borders = Vec::new();
    for index in [0, blocks - 1].into_iter().filter(|index| !sampled.contains(index)) {
        borders.push(run(index)?);
    }
    let share = 1.0 / samples as f64;
    let (mut main, mut tail) = (Counts::default(), Counts::default());
    for taken in &taken {
        main += taken.main * share;
        tail += taken.tail * share;
    }
    let all: Vec<&Taken> = taken.iter().chain(&borders).collect();
    let traffic = (0..launched.args.len()).map(|i| {
        let mean = |bytes: fn(&Touched) -> u64| -> f64 {
            taken.iter().map(|taken| bytes(&taken.touched[i]) as f64 * share).sum()
        };
        // No more than lies between the first byte and the last of all: what blocks share is counted once.
        let extent = |range: fn(&Touched) -> &Option<Range<u64>>| -> f64 {
            let ranges = || all.iter().filter_map(|taken| range(&taken.touched[i]).as_ref());
            let start = ranges().map(|range| range.start).min();
            let end = ranges().map(|range| range.end).max();
            start.zip(end).map_or(0.0, |(start, end)| (end - start) as f64)
        };
        let (read, written) = (mean(|t| t.read_bytes), mean(|t| t.written_bytes));
        Traffic {
            address: 0,
            read_bytes: (read * blocks as f64).min(extent(|t| &t.read)),
            written_bytes: (written * blocks as f64).min(extent(|t| &t.written)),
            block_read_bytes: read,
            block_written_bytes: written,
        }
    });
    Ok(Work {
        kernel: launched.kernel,
        launch,
        blocks: blocks as f64,
        main,
        tail,
        traffic: traffic.collect(),
        overlapped: false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::resources::Resource;
    use super::*;

    /// Pointers far from each other.
    fn pointer(number: u64) -> Arg {
        Arg::Ptr(number << 40)
    }

    fn work(kernel: &'static str, launch: Launch, args: Vec<Arg>) -> Work {
        let launched = Launched { kernel, launch, args, known: Vec::new() };
        Runner::default().work(&[Request::Launch(launched)]).unwrap().remove(0)
    }

    fn bytes(work: &Work) -> Vec<(f64, f64)> {
        work.traffic.iter().map(|t| (t.read_bytes, t.written_bytes)).collect()
    }

    #[test]
    fn all_kernels_are_understood() {
        for kernel in ptx::entries().keys() {
            let program = read(kernel).unwrap();
            assert!(!program.instructions.is_empty(), "{kernel}");
        }
    }

    #[test]
    fn sums_move_eight_bytes_an_element() {
        let (rows, cols) = (64, 4096);
        let mut args = vec![pointer(1), pointer(2), Arg::U32(8), pointer(3)];
        args.extend([rows, cols].map(Arg::U32));
        let work = work("from_units_i32_f32", Launch::blocks(rows, 256), args);
        let (plane, found) = (f64::from(rows * cols * 4), bytes(&work));
        assert_eq!((found[0], found[3]), ((plane, 0.0), (0.0, plane)));
        // A bound for each row, in a sector of its own or not.
        assert!(found[1].0 <= f64::from(rows * 4) && found[1].1 == 0.0, "{found:?}");
    }

    #[test]
    fn a_product_multiplies_and_moves_what_its_shape_says() {
        let (m, n, k) = (512_u32, 768_u32, 1024_u32);
        let sizes = [m, n, k].map(Arg::U32);
        let stride = |cols: u32| Arg::U64(cols.into());
        for (kernel, unit, tile, shared) in [
            ("gemm_i8_f32_nt_128x256", Resource::Int8, (128, 256), 4 * 64 * 384),
            ("gemm_i8_f32_nt_hopper", Resource::Warpgroup, (128, 256), 4 * 128 * 384 + 1024),
        ] {
            let mut args = vec![pointer(1), stride(k), pointer(2), stride(k)];
            args.extend([pointer(3), pointer(4), pointer(5), stride(n)]);
            args.extend(sizes);
            args.push(Arg::U32(0));
            let launch = Launch::blocks(m / tile.0 * (n / tile.1), 256).with_shared(shared);
            let work = work(kernel, launch, args);
            let all = (work.main + work.tail).of(unit) * work.blocks;
            assert_eq!(all, f64::from(m) * f64::from(n) * f64::from(k), "{kernel}");
            let found = bytes(&work);
            assert_eq!(found[0].0, f64::from(m * k), "{kernel}");
            assert_eq!(found[2].0, f64::from(n * k), "{kernel}");
            assert_eq!(found[6], (0.0, f64::from(m * n * 4)), "{kernel}");
            // Each block reads its strips of both operands.
            assert_eq!(work.traffic[0].block_read_bytes, f64::from(tile.0 * k), "{kernel}");
        }
    }

    #[test]
    fn an_update_reads_and_writes_each_plane_once() {
        let (rows, cols) = (16_u32, 4096_u32);
        let mut args: Vec<_> = (1..=5).map(pointer).collect();
        args.extend([Arg::NULL; 6]);
        args.extend([pointer(6), Arg::U64(cols.into()), Arg::NULL, pointer(7), pointer(8)]);
        args.extend([0, rows, cols].map(Arg::U32));
        args.extend([1.0, 1e-4, 0.9, 0.99, 0.1, 0.0, 0.0, 0.0, 1.0].map(Arg::F32));
        args.extend([Arg::U32(5), Arg::U32(1), Arg::U64(7)]);
        args.extend([1, 2, 3].map(Arg::U32));
        let launch = Launch::blocks(rows, 256).with_shared(24 << 10);
        let work = work("lion_update_f32_i8_r8_sqrt", launch, args);
        let (plane, found) = (f64::from(rows * cols), bytes(&work));
        for argument in [0, 1, 3] {
            assert_eq!(found[argument], (plane, plane), "{argument}");
        }
        assert_eq!(found[11], (4.0 * plane, 0.0));
        // Between 100 and 300 instructions for 32 weights beside each other.
        let slots = work.tail.of(Resource::Issue) * work.blocks / (plane / 32.0);
        assert!((100.0..300.0).contains(&slots), "{slots}");
    }

    #[test]
    fn streams_of_random_bits_make_no_difference_and_sizes_do() {
        let launched = |seed, cols| {
            let mut args = vec![pointer(1), Arg::U64(64), Arg::NULL, pointer(2), pointer(3)];
            args.extend([Arg::U32(cols), Arg::U32(1), Arg::U64(seed)]);
            args.extend([Arg::U32(1); 4]);
            let (kernel, launch) = ("quantize_rows_f32_i8", Launch::blocks(1, 32));
            key(&Launched { kernel, launch, args, known: Vec::new() })
        };
        assert_eq!(launched(1, 64), launched(2, 64));
        assert_ne!(launched(1, 64), launched(1, 32));
    }
}
