//! Wide channels: quantization and products with them against their definitions, on every instruction set and
//! thread count.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_tensor::wide::{WIDE_MAX, select};
use qft_tensor::{
    Buffer, Cpu, CpuConfig, Dequantize, Error, GemmI8, GemmOps, Isa, MAX_K, Mat, NO_CHANNEL,
    Orientation, Owner, QMatrix, QuantizeOps, QuantizeRows, RaiseMaxima, Rounding, ScaleAxis,
    SelectWide, WIDE, WideDigits,
};
use qft_testing::rng::TestRng;

fn cpus() -> Vec<Cpu> {
    let cpu = |threads, isa| Cpu::new(CpuConfig { threads, isa }).unwrap();
    Isa::available().into_iter().flat_map(|isa| [cpu(1, isa), cpu(2, isa)]).collect()
}

fn put<T: qft_tensor::Element>(cpu: &Cpu, values: &[T]) -> Buffer<T> {
    Buffer::from_host(cpu, Owner::Workspace, "test", values).unwrap()
}

/// Normal values with some columns multiplied.
fn outliers(rows: usize, cols: usize, channels: &[usize], factor: f32) -> Vec<f32> {
    let mut x = TestRng::new((rows * cols) as u64).normals(rows * cols, 1.0);
    for row in x.chunks_exact_mut(cols) {
        channels.iter().for_each(|&c| row[c] *= factor);
    }
    x
}

/// The largest magnitude of each column.
fn column_maxima(x: &[f32], cols: usize) -> Vec<f32> {
    let column = |c: usize| x.iter().skip(c).step_by(cols).fold(0.0f32, |a, x| a.max(x.abs()));
    (0..cols).map(column).collect()
}

/// Quantizes with the channels that these values call for.
fn quantize(cpu: &Cpu, x: &[f32], (rows, cols): (usize, usize)) -> QMatrix {
    quantize_with(cpu, x, (rows, cols), &select(&column_maxima(x, cols)))
}

fn quantize_with(
    cpu: &Cpu,
    x: &[f32],
    (rows, cols): (usize, usize),
    channels: &[u32; WIDE],
) -> QMatrix {
    let choice = put(cpu, channels);
    let mut out =
        QMatrix::alloc_wide(cpu, Owner::Workspace, "q", (rows, cols), choice.all()).unwrap();
    let x = put(cpu, x);
    let x = x.mat(rows, cols).unwrap();
    let op = QuantizeRows { x, fold: None, rounding: Rounding::Nearest, out: &mut out };
    cpu.quantize_rows(op).unwrap();
    out
}

/// Integers, scales as bits, wide channels, second digits.
fn parts(x: &QMatrix) -> (Vec<i8>, Vec<u32>, Vec<u32>, Vec<i8>) {
    let wide = x.wide.as_ref().unwrap();
    (
        x.q.host().unwrap().to_vec(),
        x.scale.host().unwrap().iter().map(|s| s.to_bits()).collect(),
        wide.channels.host().unwrap().to_vec(),
        wide.high.host().unwrap().to_vec(),
    )
}

#[test]
fn the_scale_follows_the_other_channels() {
    for (rows, cols, wide, factor) in [
        (1, 40, &[3][..], 50.0),
        (33, 40, &[0, 39], 20.0),
        (70, 300, &[1, 2, 150, 299], 60.0),
        (64, 17, &[5], 2000.0),
        (5, 64, &[], 1.0),
    ] {
        let x = outliers(rows, cols, wide, factor);
        let mut first = None;
        for cpu in cpus() {
            let q = quantize(&cpu, &x, (rows, cols));
            let got = parts(&q);
            let first = first.get_or_insert_with(|| got.clone());
            assert!(*first == got, "{cpu:?} [{rows}, {cols}]");
            // The definition.
            let channels = select(&column_maxima(&x, cols));
            assert_eq!(got.2, channels);
            let is_wide = |c: usize| channels.contains(&(c as u32));
            if factor > 1.0 && rows > 1 {
                assert!(wide.iter().all(|&c| is_wide(c)), "{channels:?} lack some of {wide:?}");
            }
            let mut back = Buffer::zeros(&cpu, Owner::Workspace, "x", rows * cols).unwrap();
            let out = back.mat_mut(rows, cols).unwrap();
            cpu.dequantize(Dequantize { x: &q, out }).unwrap();
            for (r, (row, back)) in
                x.chunks(cols).zip(back.host().unwrap().chunks(cols)).enumerate()
            {
                let absmax = |wide: bool| {
                    let of = (0..cols).filter(|&c| is_wide(c) == wide);
                    of.fold(0.0f32, |a, c| a.max(row[c].abs()))
                };
                let step = (absmax(false) / 127.0).max(absmax(true) / WIDE_MAX);
                let scale = f32::from_bits(got.1[r]);
                // Both are one or two roundings away from the exact quotient.
                assert!((scale / step - 1.0).abs() < 4.0 * f32::EPSILON, "{scale} {step}");
                for (c, (x, back)) in row.iter().zip(back).enumerate() {
                    // Half a step; the value and its product with the inverse scale are each rounded, which
                    // counts for values of 16319 steps.
                    let bound = step * 0.5 + 4.0 * f32::EPSILON * x.abs();
                    assert!((x - back).abs() <= bound, "[{r}, {c}] {x} became {back}, step {step}");
                }
            }
        }
    }
}

/// A choice that the values do not call for costs precision of rows, and nothing else: a token by itself is quantized
/// as among others.
#[test]
fn a_row_does_not_depend_on_the_others() {
    let (rows, cols) = (70, 300);
    let x = outliers(rows, cols, &[1, 2, 150, 299], 60.0);
    for channels in [&[][..], &[2], &[0, 1, 2, 299], &[1, 2, 3, 4, 5, 6, 150, 299]] {
        let mut choice = [NO_CHANNEL; WIDE];
        choice[..channels.len()].copy_from_slice(channels);
        for cpu in cpus() {
            let whole = parts(&quantize_with(&cpu, &x, (rows, cols), &choice));
            for r in [0, 31, 32, 69] {
                let row = &x[r * cols..][..cols];
                let (q, scale, _, high) = parts(&quantize_with(&cpu, row, (1, cols), &choice));
                assert_eq!(q, whole.0[r * cols..][..cols], "{cpu:?} {channels:?} {r}");
                assert_eq!(scale, whole.1[r..=r]);
                assert_eq!(high, whole.3[r * WIDE..][..WIDE]);
            }
        }
    }
}

/// Maxima of the values that digits and scales stand for, whatever was there before and however the rows are cut.
#[test]
fn maxima_are_those_of_both_digits() {
    for (rows, cols, wide, factor) in
        [(1, 40, &[3][..], 50.0), (70, 300, &[1, 2, 150, 299], 60.0), (5, 600, &[], 1.0)]
    {
        let x = outliers(rows, cols, wide, factor);
        let choice = select(&column_maxima(&x, cols));
        let before = TestRng::new(1).normals(cols, 2.0);
        for cpu in cpus() {
            let raise = |maxima: &mut Buffer<f32>, x: &QMatrix| {
                cpu.raise_maxima(RaiseMaxima { x, maxima }).unwrap();
            };
            let q = quantize(&cpu, &x, (rows, cols));
            let mut back = Buffer::zeros(&cpu, Owner::Workspace, "x", rows * cols).unwrap();
            let out = back.mat_mut(rows, cols).unwrap();
            cpu.dequantize(Dequantize { x: &q, out }).unwrap();
            let mut want = column_maxima(back.host().unwrap(), cols);
            for (want, &before) in want.iter_mut().zip(&before) {
                *want = want.max(before.abs());
            }
            let magnitudes: Vec<f32> = before.iter().map(|x| x.abs()).collect();
            let mut maxima = put(&cpu, &magnitudes);
            raise(&mut maxima, &q);
            assert_eq!(maxima.host().unwrap(), want, "{cpu:?} [{rows}, {cols}]");
            let mut cut = put(&cpu, &magnitudes);
            for part in x.chunks(3 * cols) {
                let shape = (part.len() / cols, cols);
                raise(&mut cut, &quantize_with(&cpu, part, shape, &choice));
            }
            assert_eq!(cut.host().unwrap(), want, "{cpu:?} [{rows}, {cols}] in parts");
            let mut table = put(&cpu, &[7u32; 3 * WIDE]);
            let row = table.mat_mut(3, WIDE).unwrap().row_range(1..2).unwrap();
            cpu.select_wide(SelectWide { maxima: &maxima, choice: row }).unwrap();
            let table = table.host().unwrap();
            assert_eq!(table[WIDE..2 * WIDE], select(&want));
            assert!(table[..WIDE].iter().chain(&table[2 * WIDE..]).all(|&c| c == 7));
        }
    }
}

#[test]
fn without_wide_channels_nothing_differs() {
    let (rows, cols) = (40, 100);
    let x = outliers(rows, cols, &[], 1.0);
    for cpu in cpus() {
        let wide = quantize(&cpu, &x, (rows, cols));
        let channels = wide.wide.as_ref().unwrap().channels.host().unwrap();
        assert_eq!(channels, [NO_CHANNEL; WIDE]);
        assert!(wide.wide.as_ref().unwrap().high.host().unwrap().iter().all(|&h| h == 0));
        let mut plain =
            QMatrix::alloc(&cpu, Owner::Workspace, "q", (rows, cols), ScaleAxis::Row).unwrap();
        let x = put(&cpu, &x);
        let x = x.mat(rows, cols).unwrap();
        let op = QuantizeRows { x, fold: None, rounding: Rounding::Nearest, out: &mut plain };
        cpu.quantize_rows(op).unwrap();
        assert_eq!(wide.q.host().unwrap(), plain.q.host().unwrap());
        assert_eq!(wide.scale.host().unwrap(), plain.scale.host().unwrap());
    }
}

/// Operands of a product, and the second digits of the activation among them.
struct Problem {
    orientation: Orientation,
    m: usize,
    n: usize,
    k: usize,
    channels: [u32; WIDE],
    a: Vec<i8>,
    b: Vec<i8>,
    high: Vec<i8>,
    row_scale: Vec<f32>,
    col_scale: Vec<f32>,
    out: Vec<f32>,
}

impl Problem {
    fn new(orientation: Orientation, (m, n, k): (usize, usize, usize), used: usize) -> Self {
        let mut rng = TestRng::new((m * n * k + used) as u64);
        let (tokens, width) = if orientation == Orientation::Nt { (m, k) } else { (k, n) };
        let mut channels = [NO_CHANNEL; WIDE];
        for (i, channel) in channels.iter_mut().take(used).enumerate() {
            *channel = (i * width / used) as u32;
        }
        let mut high = rng.int8(tokens * WIDE);
        // Unused places hold anything here, to show that it does not matter.
        high.iter_mut().for_each(|h| *h = (*h).max(-127));
        let (row_scale, col_scale) = (rng.normals(m, 1.0), rng.normals(n, 1e-3));
        let (a, b, out) = (rng.int8(m * k), rng.int8(n * k), rng.normals(m * n, 10.0));
        Self { orientation, m, n, k, channels, a, b, high, row_scale, col_scale, out }
    }

    /// As bits.
    fn run(&self, cpu: &Cpu, scaled: bool, accumulate: bool) -> Vec<u32> {
        let Self { m, n, k, .. } = *self;
        let nt = self.orientation == Orientation::Nt;
        let (a, b) = (put(cpu, &self.a), put(cpu, &self.b));
        let (channels, high) = (put(cpu, &self.channels), put(cpu, &self.high));
        let (row_scale, col_scale) = (put(cpu, &self.row_scale), put(cpu, &self.col_scale));
        let mut out = put(cpu, &self.out);
        let mat = |x, rows, cols| -> Mat<'_, i8> { Buffer::mat(x, rows, cols).unwrap() };
        cpu.gemm_i8(GemmI8 {
            orientation: self.orientation,
            a: if nt { mat(&a, m, k) } else { mat(&a, k, m) },
            b: if nt { mat(&b, n, k) } else { mat(&b, k, n) },
            row_scale: scaled.then(|| row_scale.all()),
            col_scale: scaled.then(|| col_scale.all()),
            out: out.mat_mut(m, n).unwrap(),
            accumulate,
            wide: Some(WideDigits {
                channels: channels.all(),
                high: mat(&high, if nt { m } else { k }, WIDE),
            }),
        })
        .unwrap();
        out.host().unwrap().iter().map(|x| x.to_bits()).collect()
    }

    fn expected(&self, scaled: bool, accumulate: bool) -> Vec<u32> {
        let Self { m, n, k, .. } = *self;
        let nt = self.orientation == Orientation::Nt;
        let a = |i: usize, s: usize| i64::from(self.a[if nt { i * k + s } else { s * m + i }]);
        let b = |j: usize, s: usize| i64::from(self.b[if nt { j * k + s } else { s * n + j }]);
        let high = |t: usize, place: usize| i64::from(self.high[t * WIDE + place]);
        let used = || self.channels.iter().take_while(|&&c| c != NO_CHANNEL).enumerate();
        let scale = |sum: i64, i: usize, j: usize| {
            let value = i32::try_from(sum).unwrap() as f32;
            if scaled { value * self.row_scale[i] * self.col_scale[j] } else { value }
        };
        let mut out = self.out.clone();
        for i in 0..m {
            for j in 0..n {
                let mut sum: i64 = (0..k).map(|s| a(i, s) * b(j, s)).sum();
                if nt {
                    sum += used().map(|(p, &c)| 128 * high(i, p) * b(j, c as usize)).sum::<i64>();
                }
                let cell = &mut out[i * n + j];
                *cell = if accumulate { *cell } else { 0.0 } + scale(sum, i, j);
            }
            for (p, &c) in used().filter(|_| !nt) {
                let sum = (0..k).map(|s| a(i, s) * high(s, p)).sum();
                out[i * n + c as usize] += 128.0 * scale(sum, i, c as usize);
            }
        }
        out.into_iter().map(f32::to_bits).collect()
    }
}

#[test]
fn products_with_both_digits() {
    let cpus = cpus();
    for orientation in [Orientation::Nt, Orientation::Tn] {
        // Dot products, tiles and their borders, and contractions that are cut.
        for shape in [
            (1, 5, 40),
            (8, 33, 64),
            (9, 31, 65),
            (13, 32, 100),
            (49, 70, 130),
            (100, 130, 300),
            (25, 40, 4100),
            (10, 1100, 33),
        ] {
            for used in [0, 1, 5, WIDE] {
                let problem = Problem::new(orientation, shape, used);
                for (scaled, accumulate) in [(true, false), (false, true), (true, true)] {
                    let expected = problem.expected(scaled, accumulate);
                    for cpu in &cpus {
                        let got = problem.run(cpu, scaled, accumulate);
                        assert!(got == expected, "{cpu:?} {orientation:?} {shape:?} {used}");
                    }
                }
            }
        }
    }
}

#[test]
fn extreme_digits_do_not_overflow() {
    let (m, n, k) = (13, 33, MAX_K - 1024);
    let cpus = cpus();
    for (value, high, weight) in [(127, 127, 127), (-127, -127, -128), (127, 127, -128)] {
        let mut channels = [0; WIDE];
        channels.iter_mut().enumerate().for_each(|(i, channel)| *channel = i as u32);
        let problem = Problem {
            orientation: Orientation::Nt,
            m,
            n,
            k,
            channels,
            a: vec![value; m * k],
            b: vec![weight; n * k],
            high: vec![high; m * WIDE],
            row_scale: Vec::new(),
            col_scale: Vec::new(),
            out: vec![0.0; m * n],
        };
        let sum = i32::from(weight) * (i32::from(value) * k as i32 + 1024 * i32::from(high));
        for cpu in &cpus[2..] {
            let got = problem.run(cpu, false, false);
            assert!(got.iter().all(|&x| x == (sum as f32).to_bits()), "{cpu:?}: {sum}");
        }
    }
}

#[test]
fn what_wide_channels_cannot_do_is_an_error() {
    let cpu = &cpus()[0];
    let x = quantize(cpu, &outliers(4, 20, &[3], 30.0), (4, 20));
    let shape = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::ShapeMismatch { .. })), "{result:?}");
    };
    let rounding = Rounding::Nearest;
    let choice = put(cpu, &[NO_CHANNEL; WIDE + 1]);
    let alloc = |places| QMatrix::alloc_wide(cpu, Owner::Workspace, "q", (4, 20), places);
    shape(alloc(choice.all()).map(drop));
    let mut wide = alloc(choice.span(1..WIDE + 1).unwrap()).unwrap();
    let mut maxima = put(cpu, &[0.0f32; 19]);
    shape(cpu.raise_maxima(RaiseMaxima { x: &wide, maxima: &mut maxima }));
    let mut table = put(cpu, &[0u32; 2 * WIDE]);
    let both = table.mat_mut(2, WIDE).unwrap();
    shape(cpu.select_wide(SelectWide { maxima: &maxima, choice: both }));
    let floats = put(cpu, &[1.0f32; 80]);
    let (x_mat, fold) = (floats.mat(4, 20).unwrap(), Some(floats.span(0..20).unwrap()));
    shape(cpu.quantize_rows(QuantizeRows { x: x_mat, fold, rounding, out: &mut wide }));
    // The digits of other rows, and a product whose contraction runs over neither axis of an activation.
    let mut out = put(cpu, &[0.0f32; 80]);
    for (orientation, rows) in [(Orientation::Nt, 3), (Orientation::Tn, 3), (Orientation::Nn, 4)] {
        let digits = x.wide.as_ref().unwrap();
        let (a, b, (m, n)) = match orientation {
            Orientation::Nt => ((4, 20), (4, 20), (4, 4)),
            Orientation::Tn => ((4, 2), (4, 20), (2, 20)),
            Orientation::Nn => ((4, 4), (4, 20), (4, 20)),
        };
        shape(cpu.gemm_i8(GemmI8 {
            orientation,
            a: x.q.mat(a.0, a.1).unwrap(),
            b: x.q.mat(b.0, b.1).unwrap(),
            row_scale: None,
            col_scale: None,
            out: out.mat_mut(m, n).unwrap(),
            accumulate: false,
            wide: Some(WideDigits {
                channels: digits.channels.all(),
                high: digits.high.mat(rows, WIDE).unwrap(),
            }),
        }));
    }
}
