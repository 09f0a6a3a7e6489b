//! Updates against the CPU. Everything that is kept (weights, residuals, protected values, scales, momentum) must have the
//! CPU's bits; sums of squares are added in another order, and have a bound.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{bits, cpu, devices_under_test, host, upload};
use qft_cuda::{Arg, Cuda, Driver, Error as DriverError, Launch, Properties};
use qft_emulator::Emulator;
use qft_optim::{
    AdamWConfig, FloatState, FloatUpdate, LionConfig, MatrixState, MatrixUpdate, MomentCode,
    OptimOps, Rule, SquareSum, UpdateStats, WeightRounding,
};
use qft_quant::{Error, HybridFormat, HybridMatrix, Residual};
use qft_tensor::{Purpose, RngKey};
use qft_testing::rng::TestRng;
use qft_testing::tolerance::UNIT;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const RESIDUALS: [Residual; 3] = [Residual::None, Residual::Bits4, Residual::Bits8];
const LION: Rule = Rule::Lion(LionConfig { beta1: 0.95, beta2: 0.98, weight_decay: 0.1 });
const ADAMW: Rule =
    Rule::AdamW(AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 });

/// Rules, and codes of their first moment.
const RULES: [(Rule, MomentCode); 4] = [
    (LION, MomentCode::Sqrt),
    (LION, MomentCode::Linear),
    (LION, MomentCode::Sqrt4),
    (ADAMW, MomentCode::Sqrt),
];

/// All that updates change.
struct Trained {
    weight: HybridMatrix,
    state: MatrixState,
    rule: Rule,
    stats: UpdateStats,
}

/// The states, as bits.
#[derive(PartialEq)]
struct Planes {
    q: Vec<i8>,
    r: Vec<i8>,
    scale: Vec<u32>,
    values: Vec<u16>,
    /// Codes and scales of each moment.
    moments: Vec<(Vec<i8>, Vec<u16>)>,
}

/// One update of some rows.
struct Step {
    rows: Range<usize>,
    grad: Vec<f32>,
    lr: f32,
    grad_scale: f32,
    rounding: WeightRounding,
    key: RngKey,
}

impl Trained {
    fn new(
        on: &dyn OptimOps,
        (rows, cols): (usize, usize),
        w: &[f32],
        format: HybridFormat,
        (rule, code): (Rule, MomentCode),
    ) -> Self {
        let read = &mut |range: Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&w[range.start * cols..range.end * cols]);
            Ok::<(), Error>(())
        };
        Self {
            weight: HybridMatrix::encode(on, (rows, cols), format, read).unwrap().0,
            state: MatrixState::zeros(on, (rows, cols), rule, code).unwrap(),
            rule,
            stats: UpdateStats::zeros(on, 2).unwrap(),
        }
    }

    /// The gradient lies `gap` elements from row to row.
    fn update(&mut self, on: &dyn OptimOps, step: &Step, gap: usize) {
        let (rows, cols) = (step.rows.len(), self.weight.cols());
        let mut wide = vec![f32::NAN; rows * (cols + gap)];
        for (to, from) in wide.chunks_mut(cols + gap).zip(step.grad.chunks(cols)) {
            to[gap..].copy_from_slice(from);
        }
        let mut grad = upload(on, &wide);
        let grad = grad.mat_mut(rows, cols + gap).unwrap().col_range(gap..cols + gap).unwrap();
        on.matrix_update(MatrixUpdate {
            weight: &mut self.weight,
            state: &mut self.state,
            rule: self.rule,
            rows: step.rows.clone(),
            grad,
            grad_scale: step.grad_scale,
            lr: step.lr,
            rounding: step.rounding,
            key: step.key,
            stats: &mut self.stats,
        })
        .unwrap();
    }

    fn planes(&self, on: &dyn OptimOps) -> Planes {
        let Self { weight, state, .. } = self;
        let halves = |b: &qft_tensor::Buffer<half::bf16>| {
            b.to_vec(on).unwrap().into_iter().map(half::bf16::to_bits).collect()
        };
        Planes {
            q: weight.q.to_vec(on).unwrap(),
            r: weight.residual.as_ref().map_or(vec![], |r| r.to_vec(on).unwrap()),
            scale: bits(&weight.scale.to_vec(on).unwrap()),
            values: weight.protected.as_ref().map_or(vec![], |o| halves(&o.values)),
            moments: std::iter::once(&state.first)
                .chain(&state.second)
                .map(|moment| (moment.q.to_vec(on).unwrap(), halves(&moment.scale)))
                .collect(),
        }
    }
}

impl Planes {
    fn assert_equals(&self, other: &Self, what: &str) {
        for (name, same) in [
            ("scale", self.scale == other.scale),
            ("q", self.q == other.q),
            ("residual", self.r == other.r),
            ("values", self.values == other.values),
            ("moments", self.moments == other.moments),
        ] {
            assert!(same, "{name}: {what}");
        }
    }
}

/// Both sums of `terms` f32 squares, each added to another order: a product and at most `terms` sums round, on either side;
/// then the sum becomes f32 and is added to the line.
fn assert_sum(got: f32, want: f32, terms: usize, what: &str) {
    if want.is_finite() {
        let bound = 2.0 * (terms as f64 + 3.0) * UNIT * f64::from(want);
        let error = f64::from(got) - f64::from(want);
        assert!(error.abs() <= bound, "{what}: {got}, expected {want}");
    } else {
        assert!(!got.is_finite(), "{what}: {got}, expected {want}");
    }
}

/// Gradients of all sizes: a step's kind decides what is special in it.
fn gradient(rng: &mut TestRng, rows: usize, cols: usize, kind: usize) -> Vec<f32> {
    let mut grad = rng.normals(rows * cols, 1e-3);
    grad[rows * cols / 2] = 0.0;
    match kind {
        1 => grad[..cols.min(3)].fill(-0.5),
        2 => {
            let last = grad.len() - 1;
            grad[last] = 3e38;
            grad[last / 2] = 1e-42;
            grad[..cols.min(40)].fill(0.0);
        }
        3 => {
            let third = grad.len() / 3;
            grad[0] = f32::NAN;
            grad[third] = f32::INFINITY;
        }
        _ => {}
    }
    grad
}

/// Several steps, large enough at times to push weights out of their range; the first in two calls.
fn compare(shape: (usize, usize), gap: usize, fraction: f64, seeds: Range<u64>) {
    compare_on(devices_under_test(), shape, gap, fraction, seeds);
}

fn compare_on(
    devices: Vec<(String, Cuda)>,
    shape: (usize, usize),
    gap: usize,
    fraction: f64,
    seeds: Range<u64>,
) {
    let ((rows, cols), cpu) = (shape, cpu());
    let mut rng = TestRng::new((rows * 10_000 + cols) as u64);
    let mut w = rng.normals(rows * cols, 0.02);
    w[0] = 0.3;
    for (name, device) in devices {
        for residual in RESIDUALS {
            for (which, rule) in RULES.into_iter().enumerate() {
                for rounding in [WeightRounding::Stochastic, WeightRounding::Nearest] {
                    // Rows of both kinds in every combination would take long.
                    let rotated =
                        (rounding == WeightRounding::Stochastic) == which.is_multiple_of(2);
                    let format = HybridFormat { residual, protected_fraction: fraction, rotated };
                    let mut want = Trained::new(&cpu, shape, &w, format, rule);
                    let mut got = Trained::new(&device, shape, &w, format, rule);
                    for t in seeds.clone() {
                        let kind = t as usize;
                        let grad = gradient(&mut rng, rows, cols, kind % 4);
                        let cut = if t == 0 { rows / 2 } else { 0 };
                        for part in [0..cut, cut..rows] {
                            let step = Step {
                                grad: grad[part.start * cols..part.end * cols].to_vec(),
                                rows: part,
                                lr: [1e-5, 3e-2, 1e-6, 1e-2][kind % 4],
                                grad_scale: 0.7,
                                rounding,
                                key: RngKey::new(5 << 33 | 1, t as u32, 1, Purpose::Update),
                            };
                            want.update(&cpu, &step, gap);
                            got.update(&device, &step, gap);
                        }
                        let what = format!(
                            "{name}: [{rows}, {cols}] {format:?} {rule:?} {rounding:?} step {t}"
                        );
                        got.planes(&device).assert_equals(&want.planes(&cpu), &what);
                        let sums = got.stats.sums.to_vec(&device).unwrap();
                        let expected = want.stats.sums.to_vec(&cpu).unwrap();
                        assert_eq!((sums[0], sums[1]), (0.0, 0.0), "another line: {what}");
                        assert_sum(sums[2], expected[2], cols.div_ceil(16), &what);
                        assert_eq!(sums[3], expected[3], "rescaled rows: {what}");
                        assert!(t == 0 || sums[3] > 0.0, "no row was rescaled: {what}");
                    }
                }
            }
        }
    }
}

#[test]
fn updates_equal_the_cpu() {
    for cols in [1, 7, 127, 128, 129, 172, 257] {
        for (fraction, gap) in [(0.0, 0), (0.05, 3)] {
            compare((3, cols), gap, fraction, 0..4);
        }
    }
}

/// More columns than a warp takes at once, more warps than one.
#[test]
fn updates_equal_the_cpu_on_wide_rows() {
    compare((2, 2600), 4, 0.02, 0..3);
}

/// Rows that do not fit shared memory wait in the scratch block.
#[test]
fn updates_equal_the_cpu_on_rows_beyond_shared_memory() {
    compare((2, 16_500), 0, 0.01, 1..2);
}

/// An emulator that runs updates with two blocks, as if there were no scratch for more rows, and counts how often.
#[derive(Debug)]
struct TwoBlocks(Emulator, AtomicU32);

impl Driver for TwoBlocks {
    fn properties(&self) -> &Properties {
        self.0.properties()
    }
    common::pass_on!(0);
    fn download(&self, dst: &mut [u8], src: u64) -> Result<(), DriverError> {
        self.0.download(dst, src)
    }
    fn synchronize(&self) -> Result<(), DriverError> {
        self.0.synchronize()
    }
    fn launch(
        &self,
        kernel: &'static str,
        mut launch: Launch,
        args: &[Arg],
    ) -> Result<(), DriverError> {
        if kernel.contains("_update_f32_i8_") {
            launch.grid[0] = launch.grid[0].min(2);
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        self.0.launch(kernel, launch, args)
    }
}

#[test]
fn updates_equal_the_cpu_where_blocks_take_several_rows() {
    for fraction in [0.0, 0.01] {
        let driver = Arc::new(TwoBlocks(Emulator::new(1 << 30, 1), AtomicU32::new(0)));
        let device = Cuda::new(Arc::clone(&driver) as Arc<dyn Driver>, host()).unwrap();
        compare_on(vec![("two blocks".to_owned(), device)], (5, 16_500), 0, fraction, 1..2);
        assert_ne!(driver.1.load(Ordering::Relaxed), 0, "no update was started");
    }
}

#[test]
fn float_updates_equal_the_cpu() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for rule in [LION, ADAMW] {
            for len in [1usize, 7, 127, 128, 1023, 1024, 5000] {
                for (start, end) in [(0, len), (len / 3, len), (0, 0)] {
                    let mut rng = TestRng::new(len as u64);
                    let w = rng.normals(len, 0.02);
                    let mut grads: Vec<_> =
                        (0..3).map(|_| rng.normals(end - start, 1e-3)).collect();
                    if let Some(first) = grads[1].first_mut() {
                        *first = 1e-42;
                    }
                    if let Some(last) = grads[2].last_mut() {
                        *last = f32::NAN;
                    }
                    let run = |on: &dyn OptimOps| {
                        let mut weight = upload(on, &w);
                        let mut state = FloatState::zeros(on, len, rule).unwrap();
                        let mut stats = UpdateStats::zeros(on, 3).unwrap();
                        let mut sums = Vec::new();
                        for (step, grad) in grads.iter().enumerate() {
                            let grad = upload(on, grad);
                            on.float_update(FloatUpdate {
                                weight: &mut weight,
                                state: &mut state,
                                start,
                                grad: grad.all(),
                                grad_scale: 0.9,
                                lr: 1e-3,
                                rule,
                                step: step as u32,
                                tensor: 2,
                                stats: &mut stats,
                            })
                            .unwrap();
                            sums.push(stats.sums.to_vec(on).unwrap());
                        }
                        let v = state.v.as_ref().map(|v| bits(&v.to_vec(on).unwrap()));
                        let m = bits(&state.m.to_vec(on).unwrap());
                        (bits(&weight.to_vec(on).unwrap()), m, v, sums)
                    };
                    let (got, want) = (run(&device), run(&cpu));
                    let what = format!("{name}: {rule:?}, {start}..{end} of {len}");
                    assert!(got.0 == want.0, "weight: {what}");
                    assert!((&got.1, &got.2) == (&want.1, &want.2), "moments: {what}");
                    for (got, want) in got.3.iter().zip(&want.3) {
                        assert_eq!(got[..4], [0.0; 4], "another line: {what}");
                        assert_eq!(got[5], 0.0, "rescaled rows: {what}");
                        assert_sum(got[4], want[4], len.div_ceil(16), &what);
                    }
                }
            }
        }
    }
}

#[test]
fn square_sums_agree() {
    let cpu = cpu();
    for (name, device) in devices_under_test() {
        for (rows, cols, gap) in
            [(0, 5, 0), (1, 1, 0), (1, 70_000, 0), (9, 129, 3), (3000, 7, 1), (5, 3000, 0)]
        {
            let x = TestRng::new(cols as u64).normals(rows * (cols + gap), 1e-3);
            let run = |on: &dyn OptimOps| {
                let (x, mut stats) = (upload(on, &x), UpdateStats::zeros(on, 2).unwrap());
                let grad = x.mat(rows, cols + gap).unwrap().col_range(gap..cols + gap).unwrap();
                on.square_sum(SquareSum { grad, first_row: 0, tensor: 1, stats: &mut stats })
                    .unwrap();
                stats.sums.to_vec(on).unwrap()
            };
            let (got, want) = (run(&device), run(&cpu));
            let what = format!("{name}: [{rows}, {cols}]");
            assert_eq!((got[0], got[1], got[3]), (0.0, 0.0, 0.0), "{what}");
            assert_sum(got[2], want[2], cols.div_ceil(16), &what);
        }
    }
}

/// The same update twice gives the same bits, sums included, whatever the order of warps.
#[test]
fn sums_are_deterministic() {
    let w = TestRng::new(1).normals(5 * 600, 0.02);
    let grad = TestRng::new(2).normals(5 * 600, 1e-3);
    let sums = |(_, device): (String, qft_cuda::Cuda)| {
        let residual = Residual::Bits8;
        let format = HybridFormat { residual, protected_fraction: 0.0, rotated: true };
        let mut trained = Trained::new(&device, (5, 600), &w, format, RULES[0]);
        let key = RngKey::new(1, 1, 0, Purpose::Update);
        let rounding = WeightRounding::Stochastic;
        let step =
            Step { rows: 0..5, grad: grad.clone(), lr: 1e-4, grad_scale: 1.0, rounding, key };
        trained.update(&device, &step, 0);
        bits(&trained.stats.sums.to_vec(&device).unwrap())
    };
    let all: Vec<_> = devices_under_test().into_iter().map(sums).collect();
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
}

/// One of some processes, which exchanges nothing.
#[derive(Debug)]
struct OneOf(usize, usize);

impl qft_tensor::Communicator for OneOf {
    fn rank(&self) -> usize {
        self.0
    }

    fn size(&self) -> usize {
        self.1
    }

    fn max(&self, _: &mut [u32]) -> Result<(), qft_tensor::Error> {
        unreachable!("an update is of one process")
    }

    fn gather(&self, _: &mut [u8], _: &[Range<usize>]) -> Result<(), qft_tensor::Error> {
        unreachable!("an update is of one process")
    }

    fn exchange(
        &self,
        _: &[u8],
        _: &[Range<usize>],
        _: &mut [u8],
        _: &[Range<usize>],
    ) -> Result<(), qft_tensor::Error> {
        unreachable!("an update is of one process")
    }

    fn background(&self) -> Option<&qft_tensor::Background> {
        None
    }

    fn abort(&self) -> ! {
        unreachable!("nothing fails")
    }
}

/// A process that keeps its own rows alone makes of them what one makes that keeps all.
#[test]
fn owned_rows_are_updated_as_all_are() {
    for rule in RULES {
        owned_rows_are_updated(rule);
    }
}

fn owned_rows_are_updated(rule: (Rule, MomentCode)) {
    let (rows, cols) = (300, 70);
    let w = TestRng::new(1).normals(rows * cols, 0.02);
    let grad = TestRng::new(2).normals(rows * cols, 1e-3);
    let format = HybridFormat { residual: Residual::Bits8, protected_fraction: 0.0, rotated: true };
    let key = RngKey::new(1, 1, 0, Purpose::Update);
    let rounding = WeightRounding::Stochastic;
    let update = |on: &dyn OptimOps, trained: &mut Trained, rows: Range<usize>| {
        let grad = grad[rows.start * cols..rows.end * cols].to_vec();
        trained.update(on, &Step { rows, grad, lr: 1e-4, grad_scale: 1.0, rounding, key }, 0);
    };
    let with_rows = |on: &dyn OptimOps| UpdateStats::with_rows(on, &[rows]).unwrap();
    let cpu = cpu();
    let mut whole = Trained::new(&cpu, (rows, cols), &w, format, rule);
    whole.stats = with_rows(&cpu);
    update(&cpu, &mut whole, 0..rows);
    let all = whole.planes(&cpu);
    let squares = whole.stats.rows.as_ref().unwrap().squares.to_vec(&cpu).unwrap();
    for rank in 0..3 {
        let mut devices: Vec<(String, Box<dyn OptimOps>)> = vec![(
            "cpu".into(),
            Box::new(common::cpu().with_communicator(std::sync::Arc::new(OneOf(rank, 3)))),
        )];
        devices.extend(devices_under_test().into_iter().map(|(name, device)| {
            let device = device.with_communicator(std::sync::Arc::new(OneOf(rank, 3)));
            (name, Box::new(device) as Box<dyn OptimOps>)
        }));
        for (name, device) in &devices {
            let on: &dyn OptimOps = &**device;
            let read = &mut |range: Range<usize>, out: &mut [f32]| {
                out.copy_from_slice(&w[range.start * cols..range.end * cols]);
                Ok::<(), Error>(())
            };
            let shape = (rows, cols);
            let kept = qft_quant::Kept::Own;
            let mut own = Trained {
                weight: HybridMatrix::encode_kept(on, shape, format, kept, read).unwrap().0,
                state: MatrixState::zeros(on, shape, rule.0, rule.1).unwrap(),
                rule: rule.0,
                stats: with_rows(on),
            };
            let shard = own.state.first.shard();
            let widths = [rule.1, MomentCode::Quartic].map(|code| code.row_bytes(cols));
            assert_eq!(own.state.first.q.len(), shard.len() * widths[0], "it keeps no more");
            for piece in shard.pieces(0..rows) {
                update(on, &mut own, piece);
            }
            let found = own.planes(on);
            let found_squares = own.stats.rows.as_ref().unwrap().squares.to_vec(on).unwrap();
            for row in shard.pieces(0..rows).flatten() {
                let what = format!("{name}, process {rank}, row {row}");
                let (at, place) = (row * cols..(row + 1) * cols, shard.place(row) * cols);
                let there = place..place + cols;
                assert!(found.q[at.clone()] == all.q[at.clone()], "{what}: q");
                assert!(found.r[there.clone()] == all.r[at.clone()], "{what}: residual");
                for (moment, width) in widths[..found.moments.len()].iter().enumerate() {
                    let here = &found.moments[moment].0[shard.place(row) * width..][..*width];
                    let whole = &all.moments[moment].0[row * width..][..*width];
                    assert!(here == whole, "{what}: moment {moment}");
                }
                assert_eq!(found.scale[row], all.scale[row], "{what}: scale");
                assert_sum(found_squares[row], squares[row], cols, &what);
            }
        }
    }
}
