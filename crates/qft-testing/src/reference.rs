//! Layer operations in f64, as plain as their equations: what every backend is compared with.

/// Head layout and document borders of an attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Where documents begin, and T at the end.
    pub borders: Vec<usize>,
    /// Query heads H.
    pub query: usize,
    /// Key/value heads G.
    pub key_value: usize,
    /// Head size D.
    pub size: usize,
}

impl Attention {
    /// Number of tokens T.
    pub fn tokens(&self) -> usize {
        self.borders.last().copied().unwrap_or(0)
    }

    /// Calls `f(head, query token, first key token)` for each query of each head.
    fn for_each(&self, mut f: impl FnMut(usize, usize, usize)) {
        for border in self.borders.windows(2) {
            for head in 0..self.query {
                (border[0]..border[1]).for_each(|t| f(head, t, border[0]));
            }
        }
    }

    /// Where the row of a query head lies in `[T, H * D]`.
    fn query_row(&self, token: usize, head: usize) -> usize {
        (token * self.query + head) * self.size
    }

    /// Where the key/value row of a query head lies in `[T, G * D]`.
    fn key_row(&self, token: usize, head: usize) -> usize {
        (token * self.key_value + head / (self.query / self.key_value)) * self.size
    }

    /// Scaled scores of one query against its keys.
    fn scores(&self, q: &[f64], k: &[f64], head: usize, t: usize, start: usize) -> Vec<f64> {
        let q = &q[self.query_row(t, head)..][..self.size];
        let scale = 1.0 / (self.size as f64).sqrt();
        (start..=t).map(|j| dot(q, &k[self.key_row(j, head)..][..self.size]) * scale).collect()
    }

    /// The result `[T, H * D]` and the log-sum-exp of the scores `[T, H]`.
    pub fn forward(&self, q: &[f64], k: &[f64], v: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let mut out = vec![0.0; q.len()];
        let mut lse = vec![0.0; self.tokens() * self.query];
        self.for_each(|head, t, start| {
            let scores = self.scores(q, k, head, t, start);
            let total = log_sum_exp(&scores);
            lse[t * self.query + head] = total;
            for (j, score) in (start..).zip(&scores) {
                let p = (score - total).exp();
                let v = &v[self.key_row(j, head)..][..self.size];
                let row = self.query_row(t, head);
                for (out, v) in out[row..].iter_mut().zip(v) {
                    *out += p * v;
                }
            }
        });
        (out, lse)
    }

    /// Gradients of q, k and v.
    pub fn backward(
        &self,
        (q, k, v): (&[f64], &[f64], &[f64]),
        dout: &[f64],
    ) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
        let scale = 1.0 / (self.size as f64).sqrt();
        self.for_each(|head, t, start| {
            let scores = self.scores(q, k, head, t, start);
            let total = log_sum_exp(&scores);
            let p: Vec<f64> = scores.iter().map(|s| (s - total).exp()).collect();
            let row = self.query_row(t, head);
            let g = &dout[row..][..self.size];
            let dp: Vec<f64> =
                (start..=t).map(|j| dot(g, &v[self.key_row(j, head)..][..self.size])).collect();
            let mean = dot(&p, &dp);
            for (i, j) in (start..=t).enumerate() {
                let key = self.key_row(j, head);
                let ds = p[i] * (dp[i] - mean) * scale;
                for d in 0..self.size {
                    dv[key + d] += p[i] * g[d];
                    dq[row + d] += ds * k[key + d];
                    dk[key + d] += ds * q[row + d];
                }
            }
        });
        (dq, dk, dv)
    }
}

/// `sum of a[i] * b[i]`.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `ln(sum of e^x)`.
pub fn log_sum_exp(x: &[f64]) -> f64 {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln()
}

/// RMSNorm: the result and `1 / rms` of each row.
pub fn rmsnorm(x: &[f64], gain: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let rstd: Vec<f64> = (x.chunks_exact(gain.len()))
        .map(|row| 1.0 / (dot(row, row) / row.len() as f64 + eps).sqrt())
        .collect();
    let rows = x.chunks_exact(gain.len()).zip(&rstd);
    let out = rows.flat_map(|(row, r)| row.iter().zip(gain).map(move |(x, g)| x * r * g));
    (out.collect(), rstd)
}

/// Gradients of the input and of the gain.
pub fn rmsnorm_backward(x: &[f64], gain: &[f64], eps: f64, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (_, rstd) = rmsnorm(x, gain, eps);
    let cols = gain.len();
    let (mut dx, mut dgain) = (vec![0.0; x.len()], vec![0.0; cols]);
    for (r, rstd) in rstd.iter().enumerate() {
        let (x, dy) = (&x[r * cols..][..cols], &dy[r * cols..][..cols]);
        let mean = (0..cols).map(|c| dy[c] * gain[c] * x[c] * rstd).sum::<f64>() / cols as f64;
        for c in 0..cols {
            dx[r * cols + c] = rstd * (dy[c] * gain[c] - x[c] * rstd * mean);
            dgain[c] += dy[c] * x[c] * rstd;
        }
    }
    (dx, dgain)
}

/// Rotates the first channels of each head of `size` channels, as many as twice the frequencies, and multiplies them by
/// `scale`; `inverse` negates the angles.
pub fn rope(
    x: &[f64],
    positions: &[u32],
    inv_freq: &[f64],
    (heads, size): (usize, usize),
    scale: f64,
    inverse: bool,
) -> Vec<f64> {
    let half = inv_freq.len();
    let mut out = x.to_vec();
    for (row, head) in (0..positions.len()).flat_map(|r| (0..heads).map(move |h| (r, h))) {
        let at = (row * heads + head) * size;
        for (i, f) in inv_freq.iter().enumerate() {
            let angle = f64::from(positions[row]) * f;
            let (sin, cos) = if inverse { -angle } else { angle }.sin_cos();
            let (a, b) = (x[at + i], x[at + half + i]);
            out[at + i] = scale * (a * cos - b * sin);
            out[at + half + i] = scale * (b * cos + a * sin);
        }
    }
    out
}

/// `y + bias` in every row.
pub fn add_bias(y: &[f64], bias: &[f64]) -> Vec<f64> {
    y.iter().zip(bias.iter().cycle()).map(|(y, bias)| y + bias).collect()
}

/// The sums of the columns of `dy`.
pub fn bias_gradient(dy: &[f64], width: usize) -> Vec<f64> {
    (0..width).map(|n| dy.iter().skip(n).step_by(width).sum()).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `silu(gate) * up`.
pub fn swiglu(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u).collect()
}

/// Gradients of gate and up.
pub fn swiglu_backward(dy: &[f64], gate: &[f64], up: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let inputs = dy.iter().zip(gate.iter().zip(up));
    inputs
        .map(|(dy, (g, u))| {
            let s = sigmoid(*g);
            (dy * u * (s + g * s * (1.0 - s)), dy * g * s)
        })
        .unzip()
}

/// `weight` times the sum of the negative log-likelihoods; `logits` `[M, V]`.
pub fn cross_entropy(logits: &[f64], targets: &[u32], weight: f64) -> f64 {
    let vocab = logits.len() / targets.len();
    (logits.chunks_exact(vocab).zip(targets))
        .map(|(row, &target)| (log_sum_exp(row) - row[target as usize]) * weight)
        .sum()
}

/// Gradient of [`cross_entropy`].
pub fn cross_entropy_backward(logits: &[f64], targets: &[u32], weight: f64) -> Vec<f64> {
    let vocab = logits.len() / targets.len();
    let mut out = Vec::with_capacity(logits.len());
    for (row, &target) in logits.chunks_exact(vocab).zip(targets) {
        let total = log_sum_exp(row);
        out.extend(row.iter().enumerate().map(|(col, x)| {
            let hit = if col == target as usize { 1.0 } else { 0.0 };
            ((x - total).exp() - hit) * weight
        }));
    }
    out
}

/// `out[t] = table[ids[t]]`.
pub fn embedding(table: &[f64], ids: &[u32], cols: usize) -> Vec<f64> {
    ids.iter().flat_map(|&id| table[id as usize * cols..][..cols].iter().copied()).collect()
}

/// Gradient of the table `[vocab, cols]`.
pub fn embedding_backward(ids: &[u32], dy: &[f64], vocab: usize, cols: usize) -> Vec<f64> {
    let mut grad = vec![0.0; vocab * cols];
    for (&id, dy) in ids.iter().zip(dy.chunks_exact(cols)) {
        for (grad, dy) in grad[id as usize * cols..].iter_mut().zip(dy) {
            *grad += dy;
        }
    }
    grad
}

/// Exactly the same numbers in f64.
pub fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}
