//! Matrix products against the CPU: integer ones bit for bit, float ones within the rounding of their sums.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{alloc, bits, cpu, devices_under_test, host, upload};
use proptest::prelude::*;
use qft_cuda::{Arg, Cuda, Driver, Error, Gpu, Launch, Properties};
use qft_emulator::Emulator;
use qft_tensor::{
    Buffer, Element, GemmF32, GemmI8, GemmOps, GemmOut, MAX_K, Mat, MatMut, Orientation,
};
use qft_testing::rng::TestRng;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// A device that claims to have one multiprocessor, so that the larger tiles are chosen for results as small as they are.
#[derive(Debug)]
struct OneMultiprocessor {
    driver: Arc<dyn Driver>,
    properties: Properties,
    /// A kernel that leaves its result as it is.
    broken: Option<&'static str>,
    /// All kernels that were started.
    launched: Mutex<BTreeSet<&'static str>>,
}

impl OneMultiprocessor {
    fn of(driver: Arc<dyn Driver>) -> Self {
        let properties = Properties { multiprocessors: 1, ..driver.properties().clone() };
        Self { driver, properties, broken: None, launched: Mutex::default() }
    }

    fn new(seed: u64) -> Self {
        Self::of(Arc::new(Emulator::new(1 << 30, seed)))
    }

    /// The same with an H100's compute capability and shared memory.
    fn hopper(seed: u64) -> Self {
        let mut driver = Self::new(seed);
        driver.properties.compute_capability = (9, 0);
        driver.properties.max_shared_bytes = 227 << 10;
        driver
    }

    fn has_launched(&self, kernel: &str) -> bool {
        self.launched.lock().unwrap().contains(kernel)
    }
}

impl Driver for OneMultiprocessor {
    fn properties(&self) -> &Properties {
        &self.properties
    }
    common::pass_on!(driver);
    fn download(&self, dst: &mut [u8], src: u64) -> Result<(), Error> {
        self.driver.download(dst, src)
    }
    fn synchronize(&self) -> Result<(), Error> {
        self.driver.synchronize()
    }
    fn launch(&self, kernel: &'static str, launch: Launch, args: &[Arg]) -> Result<(), Error> {
        if self.broken == Some(kernel) {
            return Ok(());
        }
        self.launched.lock().unwrap().insert(kernel);
        self.driver.launch(kernel, launch, args)
    }
}

fn devices() -> Vec<(String, Cuda)> {
    let mut devices = devices_under_test();
    for (name, driver) in [
        ("emulator with one multiprocessor", OneMultiprocessor::new(3)),
        ("emulator of Hopper with one multiprocessor", OneMultiprocessor::hopper(4)),
    ] {
        devices.push((name.to_owned(), Cuda::new(Arc::new(driver), host()).unwrap()));
    }
    // Where there is a GPU, its large tiles too: results that fill it would take the CPU too long.
    if let Ok(gpu) = Gpu::open(0) {
        let name = format!("{} as if with one multiprocessor", gpu.properties().name);
        let driver = OneMultiprocessor::of(Arc::new(gpu));
        devices.push((name, Cuda::new(Arc::new(driver), host()).unwrap()));
    }
    devices
}

/// What the elements are.
#[derive(Debug, Clone, Copy)]
enum Values {
    /// All of i8, -128 included.
    Random,
    /// One value per operand.
    Same(i8, i8),
}

/// A product of views into wider matrices.
#[derive(Debug, Clone, Copy)]
struct Problem {
    orientation: Orientation,
    m: usize,
    n: usize,
    k: usize,
    /// Columns to the left and to the right of the views `a`, `b` and the result.
    margins: [(usize, usize); 3],
    row_scale: bool,
    col_scale: bool,
    /// Whether results are whole numbers of units, for how many of them.
    units: Option<u32>,
    accumulate: bool,
    values: Values,
}

impl Problem {
    fn new(orientation: Orientation, m: usize, n: usize, k: usize) -> Self {
        let (margins, values) = ([(0, 0); 3], Values::Random);
        let (row_scale, col_scale, units, accumulate) = (true, true, None, false);
        Self { orientation, m, n, k, margins, row_scale, col_scale, units, accumulate, values }
    }

    /// The same shape with 16-byte aligned rows of `a` and `b`, inside of wider matrices.
    fn aligned(self) -> Self {
        let right = |cols: usize| 16 + cols.next_multiple_of(16) - cols;
        let [(_, a), (_, b)] = stored(self.orientation, self.m, self.n, self.k);
        Self { margins: [(16, right(a)), (32, right(b)), (4, 0)], ..self }
    }

    /// The whole matrix around the result afterwards, so that a write beside the view shows.
    fn run(&self, device: &impl GemmOps) -> Vec<u32> {
        let Self { orientation, m, n, k, margins, .. } = *self;
        let [a_shape, b_shape] = stored(orientation, m, n, k);
        let mut rng = TestRng::new((m * 1009 + n * 31 + k) as u64);
        let width = |cols: usize, i: usize| margins[i].0 + cols + margins[i].1;
        let mut ints = |i: usize, (rows, cols): (usize, usize)| match self.values {
            Values::Random => upload(device, &rng.int8(rows * width(cols, i))),
            Values::Same(a, b) => upload(device, &vec![[a, b][i]; rows * width(cols, i)]),
        };
        let (a, b) = (ints(0, a_shape), ints(1, b_shape));
        let row_scale = upload(device, &rng.normals(m, 1.0));
        let col_scale = upload(device, &rng.normals(n, 1e-3));
        let mut out = upload(device, &rng.normals(m * width(n, 2), 10.0));
        let mut sum: Buffer<i32> = upload(device, &vec![-7; m * width(n, 2)]);
        // The largest magnitude of a result; of every fifth row it is not a number.
        let bounds = (0..m).map(|m| if m % 5 == 3 { f32::NAN } else { 1e3 + m as f32 });
        let bound = upload(device, &bounds.collect::<Vec<_>>());
        let view = |buffer, i, shape| view(buffer, shape, margins[i]);
        device
            .gemm_i8(GemmI8 {
                orientation,
                a: view(&a, 0, a_shape),
                b: view(&b, 1, b_shape),
                row_scale: self.row_scale.then_some(row_scale.all()),
                col_scale: self.col_scale.then_some(col_scale.all()),
                out: match self.units {
                    None => GemmOut::Floats {
                        out: view_mut(&mut out, (m, n), margins[2]),
                        accumulate: self.accumulate,
                    },
                    Some(count) => GemmOut::Units {
                        sum: view_mut(&mut sum, (m, n), margins[2]),
                        bound: bound.all(),
                        count,
                        accumulate: self.accumulate,
                    },
                },
            })
            .unwrap_or_else(|error| panic!("{error}: {self:?}"));
        match self.units {
            None => bits(&out.to_vec(device).unwrap()),
            Some(_) => sum.to_vec(device).unwrap().into_iter().map(i32::cast_unsigned).collect(),
        }
    }
}

/// Rows and columns of both operands as stored.
fn stored(orientation: Orientation, m: usize, n: usize, k: usize) -> [(usize, usize); 2] {
    match orientation {
        Orientation::Nt => [(m, k), (n, k)],
        Orientation::Nn => [(m, k), (k, n)],
        Orientation::Tn => [(k, m), (k, n)],
    }
}

fn view<T: Element>(
    buffer: &Buffer<T>,
    (rows, cols): (usize, usize),
    (left, right): (usize, usize),
) -> Mat<'_, T> {
    buffer.mat(rows, left + cols + right).unwrap().col_range(left..left + cols).unwrap()
}

fn view_mut<T: Element>(
    buffer: &mut Buffer<T>,
    (rows, cols): (usize, usize),
    (left, right): (usize, usize),
) -> MatMut<'_, T> {
    buffer.mat_mut(rows, left + cols + right).unwrap().col_range(left..left + cols).unwrap()
}

/// Runs the problems on the CPU and on every device.
fn compare(problems: &[Problem]) {
    compare_on(&devices(), problems);
}

fn compare_on(devices: &[(String, Cuda)], problems: &[Problem]) {
    let cpu = cpu();
    for problem in problems {
        let expected = problem.run(&cpu);
        for (name, device) in devices {
            assert!(problem.run(device) == expected, "{name}: {problem:?}");
        }
    }
}

/// Around nothing, one, the octets and groups of the tensor cores, 16 bytes, and the tiles of every kernel.
#[test]
fn borders() {
    let mut problems = Vec::new();
    for orientation in Orientation::ALL {
        let shapes = [
            (0, 5, 7),
            (5, 0, 7),
            (5, 7, 0),
            (1, 1, 1),
            (9, 3, 2),
            (16, 31, 33),
            (33, 64, 15),
            (63, 65, 64),
            (64, 63, 65),
            (65, 33, 130),
            (127, 129, 63),
            (129, 100, 66),
            (128, 257, 64),
            (60, 255, 129),
        ];
        for (m, n, k) in shapes {
            let problem = Problem::new(orientation, m, n, k);
            problems.extend([problem.aligned(), problem]);
            if orientation == Orientation::Tn {
                let units = Problem { units: Some(3), ..problem };
                let adding = Problem { accumulate: true, units: Some(1), ..problem };
                problems.extend([units.aligned(), units, adding.aligned(), adding]);
            }
        }
    }
    compare(&problems);
}

const HOPPER_KERNEL: &str = "gemm_i8_f32_nt_hopper";

/// Rows, columns and steps around those of the tile, more tiles of steps than the pipeline holds, all that is optional.
#[test]
fn products_of_warpgroups() {
    let nt = [
        (9, 65, 0),
        (65, 9, 1),
        (64, 256, 128),
        (127, 255, 127),
        (128, 257, 129),
        (129, 256, 256),
        (130, 300, 700),
        (16, 80, 1100),
        (257, 70, 513),
    ];
    // The tile is that of the transposed result.
    let nn = nt.map(|(m, n, k)| (n, m, k));
    // Where transposing would take longer than the product, another kernel is chosen.
    let tn = [
        (129, 9, 1),
        (129, 33, 15),
        (256, 64, 128),
        (255, 127, 127),
        (257, 128, 129),
        (256, 129, 256),
        (300, 130, 700),
        (143, 70, 513),
    ];
    products_of_warpgroups_in(Orientation::Nt, None, &nt, &[HOPPER_KERNEL]);
    products_of_warpgroups_in(Orientation::Nn, None, &nn, &["gemm_i8_f32_nn_hopper"]);
    let floats = ["gemm_i8_f32_nn_hopper", "transpose_i8"];
    products_of_warpgroups_in(Orientation::Tn, None, &tn, &floats);
    let units = ["gemm_i8_i32_nn_hopper", "transpose_i8"];
    products_of_warpgroups_in(Orientation::Tn, Some(2), &tn, &units);
}

/// Products of these shapes, which all the kernels of `expected` must compute, and no others.
fn products_of_warpgroups_in(
    orientation: Orientation,
    units: Option<u32>,
    shapes: &[(usize, usize, usize)],
    expected: &[&'static str],
) {
    let mut drivers = vec![OneMultiprocessor::hopper(7), OneMultiprocessor::hopper(8)];
    if let Ok(gpu) = Gpu::open(0)
        && gpu.properties().compute_capability == (9, 0)
    {
        drivers.push(OneMultiprocessor::of(Arc::new(gpu)));
    }
    let drivers: Vec<_> = drivers.into_iter().map(Arc::new).collect();
    let devices: Vec<_> = drivers
        .iter()
        .map(|driver| {
            let name = driver.properties.name.clone();
            (name, Cuda::new(Arc::clone(driver) as Arc<dyn Driver>, host()).unwrap())
        })
        .collect();
    for (index, &(m, n, k)) in shapes.iter().enumerate() {
        let problem = Problem { units, ..Problem::new(orientation, m, n, k) }.aligned();
        let odd = [problem.margins[0], problem.margins[1], (index % 3, 1)];
        let problems = [
            problem,
            Problem { accumulate: true, row_scale: false, margins: odd, ..problem },
            Problem { col_scale: false, ..problem },
            Problem { values: Values::Same(-128, -128), accumulate: true, ..problem },
        ];
        for driver in &drivers {
            driver.launched.lock().unwrap().clear();
        }
        compare_on(&devices, &problems);
        for driver in &drivers {
            let launched = driver.launched.lock().unwrap().clone();
            assert!(launched.iter().eq(expected), "{orientation:?} {m} {n} {k}: {launched:?}");
        }
    }
}

/// Another device never loads them; one that gives a wrong answer goes without, and is right.
#[test]
fn products_of_warpgroups_are_tried_before_they_are_trusted() {
    let problem = Problem::new(Orientation::Nt, 70, 100, 130).aligned();
    let launches = |driver: OneMultiprocessor| {
        let driver = Arc::new(driver);
        let device = Cuda::new(Arc::clone(&driver) as Arc<dyn Driver>, host()).unwrap();
        compare_on(&[("emulator".to_owned(), device)], &[problem]);
        driver.has_launched(HOPPER_KERNEL)
    };
    let broken = OneMultiprocessor { broken: Some(HOPPER_KERNEL), ..OneMultiprocessor::hopper(0) };
    let mut blackwell = OneMultiprocessor::hopper(0);
    blackwell.properties.compute_capability = (10, 0);
    assert!(launches(OneMultiprocessor::hopper(0)));
    assert!(!launches(broken) && !launches(blackwell) && !launches(OneMultiprocessor::new(0)));
}

#[test]
fn few_rows() {
    let mut problems = Vec::new();
    for m in 1..=9 {
        for (n, k) in [(1, 16), (16, 512), (37, 1100), (50, 15)] {
            let problem = Problem::new(Orientation::Nt, m, n, k);
            problems.push(Problem { accumulate: n == 37, ..problem.aligned() });
            problems.push(Problem { col_scale: false, ..problem });
        }
    }
    compare(&problems);
}

#[test]
fn missing_scales_accumulation_and_odd_views() {
    let mut problems = Vec::new();
    for orientation in Orientation::ALL {
        for flags in 0..8 {
            let flag = |bit: u32| flags >> bit & 1 != 0;
            for (m, n, k) in [(3, 37, 70), (30, 70, 33), (30, 64, 0), (70, 140, 20)] {
                let problem = Problem {
                    row_scale: flag(0),
                    col_scale: flag(1),
                    accumulate: flag(2),
                    ..Problem::new(orientation, m, n, k)
                };
                let odd = [(flags, 1), (3, 5 - flags % 4), (flags % 5, flags % 3)];
                problems.extend([problem.aligned(), Problem { margins: odd, ..problem }]);
            }
        }
    }
    compare(&problems);
}

/// The largest sums that a contraction of the greatest length can have, on every path but the large tiles, which differ
/// from the small ones in size alone.
#[test]
fn extreme_values_do_not_saturate() {
    let mut problems = Vec::new();
    for orientation in Orientation::ALL {
        for (a, b) in [(-128, -128), (-128, 127)] {
            let (values, row_scale, col_scale) = (Values::Same(a, b), false, false);
            let problem = |m, n| Problem {
                values,
                row_scale,
                col_scale,
                ..Problem::new(orientation, m, n, MAX_K)
            };
            problems.extend([problem(1, 3).aligned(), problem(9, 2), problem(9, 2).aligned()]);
        }
    }
    compare_on(&[("emulator".to_owned(), common::emulator(5))], &problems);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_shape(
        orientation in prop::sample::select(Orientation::ALL.to_vec()),
        (m, n, k) in (0usize..200, 0usize..300, 0usize..200),
        margins in prop::array::uniform3((0usize..40, 0usize..40)),
        (row_scale, col_scale, accumulate, aligned) in any::<(bool, bool, bool, bool)>(),
    ) {
        let problem = Problem {
            margins,
            row_scale,
            col_scale,
            accumulate,
            ..Problem::new(orientation, m, n, k)
        };
        compare(&[if aligned { problem.aligned() } else { problem }]);
    }
}

/// What cannot be a product, and what is not here, are errors before anything is started.
#[test]
fn wrong_operands_are_errors() {
    let device = common::emulator(0);
    let a = upload(&device, &[1i8; 64]);
    let mut out = alloc::<f32>(&device, 64);
    let on_host = upload(&cpu(), &[1i8; 64]);
    let mut run = |a: Mat<'_, i8>, b: Mat<'_, i8>| {
        device.gemm_i8(GemmI8 {
            orientation: Orientation::Nt,
            a,
            b,
            row_scale: None,
            col_scale: None,
            out: GemmOut::floats(out.mat_mut(2, 3).unwrap()),
        })
    };
    let (x, y) = (a.mat(2, 8).unwrap(), a.mat(3, 9).unwrap());
    assert!(matches!(run(x, y), Err(qft_tensor::Error::ShapeMismatch { .. })));
    let y = on_host.mat(3, 8).unwrap();
    assert!(matches!(run(x, y), Err(qft_tensor::Error::WrongDevice { .. })));
}

/// Float products differ from `f64` sums by rounding only: each of the `k` fused multiply-adds errs by at most half an
/// ulp of a partial sum, which the sum of magnitudes bounds, and so does the final addition. The same bits on every run.
#[test]
fn float_products() {
    let devices = devices();
    let shapes = [
        (0, 3, 3),
        (3, 0, 3),
        (3, 4, 0),
        (1, 1, 1),
        (5, 70, 9),
        (127, 63, 16),
        (129, 65, 17),
        (200, 3, 40),
        (130, 300, 65),
    ];
    for orientation in Orientation::ALL {
        for (m, n, k) in shapes {
            let mut rng = TestRng::new(9);
            for (accumulate, margins) in [(false, [(0, 0); 3]), (true, [(1, 2), (0, 3), (4, 5)])] {
                let [a_shape, b_shape] = stored(orientation, m, n, k);
                let width = |cols: usize, i: usize| margins[i].0 + cols + margins[i].1;
                let mut floats = |i, (rows, cols)| rng.normals(rows * width(cols, i), 1.0);
                let (a, b) = (floats(0, a_shape), floats(1, b_shape));
                let before = floats(2, (m, n));
                let mut results = devices.iter().map(|(_, device)| {
                    let (a, b) = (upload(device, &a), upload(device, &b));
                    let mut out = upload(device, &before);
                    device
                        .gemm_f32(GemmF32 {
                            orientation,
                            a: view(&a, a_shape, margins[0]),
                            b: view(&b, b_shape, margins[1]),
                            out: view_mut(&mut out, (m, n), margins[2]),
                            accumulate,
                        })
                        .unwrap();
                    out.to_vec(device).unwrap()
                });
                let got = results.next().unwrap();
                for other in results {
                    assert!(bits(&other) == bits(&got), "{orientation:?} {m} {n} {k} differs");
                }
                let at = |x: &[f32], i: usize, cols: usize, row: usize, col: usize| {
                    f64::from(x[row * width(cols, i) + margins[i].0 + col])
                };
                for (index, &value) in got.iter().enumerate() {
                    let (row, col) = (index / width(n, 2), index % width(n, 2));
                    let Some(col) = col.checked_sub(margins[2].0).filter(|&col| col < n) else {
                        assert_eq!(value.to_bits(), before[index].to_bits(), "beside the view");
                        continue;
                    };
                    let terms = (0..k).map(|step| {
                        let (ar, ac) = match orientation {
                            Orientation::Tn => (step, row),
                            _ => (row, step),
                        };
                        let (br, bc) = match orientation {
                            Orientation::Nt => (col, step),
                            _ => (step, col),
                        };
                        at(&a, 0, a_shape.1, ar, ac) * at(&b, 1, b_shape.1, br, bc)
                    });
                    let start = if accumulate { f64::from(before[index]) } else { 0.0 };
                    let sum = start + terms.clone().sum::<f64>();
                    let magnitude = start.abs() + terms.map(f64::abs).sum::<f64>();
                    let tolerance = (k + 1) as f64 * f64::from(f32::EPSILON) * magnitude;
                    let error = (f64::from(value) - sum).abs();
                    assert!(error <= tolerance, "{value} {sum} {orientation:?} {m} {n} {k}");
                }
            }
        }
    }
}
