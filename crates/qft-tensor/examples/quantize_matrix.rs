//! Quantizes random matrices to INT8 and multiplies them: how much precision a scale per row or per column
//! keeps, and what is left of it in a product.
//!
//! `cargo run --release -p qft-tensor --example quantize_matrix`

use qft_tensor::{
    Buffer, Cpu, CpuConfig, Dequantize, Error, GemmF32, GemmI8, GemmOps, GemmOut, Orientation,
    Owner, Philox, Purpose, QMatrix, QuantizeCols, QuantizeOps, QuantizeRows, RngKey, Rounding,
    ScaleAxis,
};

const TOKENS: usize = 256;
const INPUTS: usize = 1024;
const OUTPUTS: usize = 512;

fn main() -> Result<(), Error> {
    let cpu = Cpu::new(CpuConfig::detect()?)?;
    println!("{} threads, instruction set {}\n", cpu.threads(), cpu.isa());

    let x = normals(0, TOKENS * INPUTS, 1.0);
    // A few features are 20 times larger than the rest, as in the activations of language models.
    let outliers: Vec<f32> = x
        .iter()
        .enumerate()
        .map(|(i, &v)| if i % INPUTS % 100 == 7 { 20.0 * v } else { v })
        .collect();
    println!("relative error of INT8   normal  with outliers");
    for (name, axis) in [("one per row", ScaleAxis::Row), ("one per column", ScaleAxis::Column)] {
        let errors = [&x, &outliers].map(|x| round_trip(&cpu, x, axis));
        let [normal, with_outliers] = errors;
        println!("{name:<22} {:>6.2} %  {:>6.2} %", 100.0 * normal?, 100.0 * with_outliers?);
    }

    let w = normals(1, OUTPUTS * INPUTS, 0.02);
    let (float, integer) = products(&cpu, &x, &w)?;
    println!(
        "\ny = x w^T, [{TOKENS}, {INPUTS}] by [{OUTPUTS}, {INPUTS}]: INT8 against float, relative error {:.2} %",
        100.0 * relative_error(&float, &integer)
    );
    Ok(())
}

/// The error that quantizing and dequantizing makes.
fn round_trip(cpu: &Cpu, x: &[f32], axis: ScaleAxis) -> Result<f64, Error> {
    let quantized = quantize(cpu, x, (TOKENS, INPUTS), axis)?;
    let mut back = Buffer::alloc(cpu, Owner::Workspace, "back", x.len())?;
    cpu.dequantize(Dequantize { x: &quantized, out: back.mat_mut(TOKENS, INPUTS)? })?;
    Ok(relative_error(x, back.host()?))
}

fn quantize(
    cpu: &Cpu,
    x: &[f32],
    (rows, cols): (usize, usize),
    axis: ScaleAxis,
) -> Result<QMatrix, Error> {
    let x = Buffer::from_host(cpu, Owner::Workspace, "x", x)?;
    let mut out = QMatrix::alloc(cpu, Owner::Workspace, "x.q", (rows, cols), axis)?;
    let (x, fold, rounding) = (x.mat(rows, cols)?, None, Rounding::Nearest);
    if axis == ScaleAxis::Column {
        cpu.quantize_cols(QuantizeCols { x, fold, rounding, out: &mut out })?;
    } else {
        cpu.quantize_rows(QuantizeRows { x, fold, rounding, out: &mut out })?;
    }
    Ok(out)
}

/// `x w^T` in float, and from integers with one scale per row of `x` and of `w`.
fn products(cpu: &Cpu, x: &[f32], w: &[f32]) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let orientation = Orientation::Nt;
    let mut out = Buffer::alloc(cpu, Owner::Workspace, "y", TOKENS * OUTPUTS)?;
    let (a, b) = (
        Buffer::from_host(cpu, Owner::Workspace, "x", x)?,
        Buffer::from_host(cpu, Owner::Workspace, "w", w)?,
    );
    cpu.gemm_f32(GemmF32 {
        orientation,
        a: a.mat(TOKENS, INPUTS)?,
        b: b.mat(OUTPUTS, INPUTS)?,
        out: out.mat_mut(TOKENS, OUTPUTS)?,
        accumulate: false,
    })?;
    let float = out.to_vec(cpu)?;

    let x = quantize(cpu, x, (TOKENS, INPUTS), ScaleAxis::Row)?;
    let w = quantize(cpu, w, (OUTPUTS, INPUTS), ScaleAxis::Row)?;
    cpu.gemm_i8(GemmI8 {
        orientation,
        a: x.ints()?,
        b: w.ints()?,
        row_scale: Some(x.scale.all()),
        col_scale: Some(w.scale.all()),
        out: GemmOut::floats(out.mat_mut(TOKENS, OUTPUTS)?),
    })?;
    Ok((float, out.to_vec(cpu)?))
}

/// `|x - y| / |x|`.
fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
    };
    norm(&mut x.iter().zip(y).map(|(x, y)| x - y)) / norm(&mut x.iter().copied())
}

/// Normal numbers: Box and Muller over the crate's own generator.
fn normals(tensor: u32, len: usize, sigma: f32) -> Vec<f32> {
    let philox = Philox::new(RngKey::new(42, 0, tensor, Purpose::InitialWeights));
    let mut out = Vec::with_capacity(len);
    for block in 0..len.div_ceil(32) {
        let uniform = philox.block(block as u32).map(|word| (word >> 8) as f32 / 16_777_216.0);
        let (radii, angles) = uniform.split_at(32);
        out.extend(radii.iter().zip(angles).map(|(&radius, &angle)| {
            sigma * (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
        }));
    }
    out.truncate(len);
    out
}
