//! Gradients by central differences.

/// The gradient of `f` at `x`: `(f(x + h e_i) - f(x - h e_i)) / 2 h` with `h = step`.
///
/// In f64, for functions of unit scale, a step of 1e-5 leaves an error of about 1e-10: the third derivative
/// times h^2 / 6, plus rounding over h.
pub fn gradient(x: &[f64], step: f64, mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut moved = x.to_vec();
    (0..x.len())
        .map(|i| {
            moved[i] = x[i] + step;
            let above = f(&moved);
            moved[i] = x[i] - step;
            let below = f(&moved);
            moved[i] = x[i];
            (above - below) / (2.0 * step)
        })
        .collect()
}
