//! Changes of kernels that were proposed, each made to the counts of a step: what it reads, writes and computes afterwards.

use super::resources::Resource;
use super::work::{Traffic, Work};
use std::collections::HashMap;

/// Blocks of the vocabulary that become one.
const MERGED_BLOCKS: usize = 8;

/// A change, on top of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    Today,
    Bf16,
    AttentionBackward,
    OnePass,
    Persistent,
    Head,
}

impl Rung {
    /// All, in the order in which they follow each other.
    pub(super) const ALL: [Self; 6] = [
        Self::Today,
        Self::Bf16,
        Self::AttentionBackward,
        Self::OnePass,
        Self::Persistent,
        Self::Head,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Today => "as it is",
            Self::Bf16 => {
                "bf16 for q, k, v, attention's output, gate, up and the gradients of inner activations"
            }
            Self::AttentionBackward => {
                "attention's backward pass in one kernel, 10 D instead of 14 D"
            }
            Self::OnePass => "gradients of outputs quantized in one pass, both ways",
            Self::Persistent => "persistent products on Hopper, multicast",
            Self::Head => "blocks of the vocabulary eight times as large",
        }
    }

    /// Changes a step that has all changes before this one; `accumulate` is its number of micro-batches.
    pub(super) fn apply(self, work: Vec<Work>, accumulate: usize) -> Vec<Work> {
        match self {
            Self::Today => work,
            Self::Bf16 => bf16(work),
            Self::AttentionBackward => attention_backward(work),
            Self::OnePass => one_pass(work),
            Self::Persistent => persistent(work),
            Self::Head => head(work, accumulate),
        }
    }
}

/// What a buffer holds, if it is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contents {
    /// An activation or gradient that would be stored in two bytes instead of four.
    Narrow,
    Logits,
    /// A quantized gradient of logits.
    OfLogits,
}

/// A product of the first operand's rows with those of the second.
fn is_nt(work: &Work) -> bool {
    work.kernel.starts_with("gemm_i8_f32_nt")
}

/// Whether a product is that of a gradient of weights: `tn`, or on Hopper `nn` behind a transposition.
fn is_weight_gradient(work: &[Work], at: usize) -> bool {
    let kernel = work[at].kernel;
    kernel.starts_with("gemm_i8_f32_tn")
        || kernel.starts_with("gemm_i8_i32")
        || kernel.starts_with("gemm_i8_f32_nn") && at > 0 && work[at - 1].kernel == "transpose_i8"
}

/// For each launch what its arguments hold when it has ended, in the order of arguments.
fn contents(work: &[Work]) -> Vec<Vec<Option<Contents>>> {
    let mut known: HashMap<u64, Contents> = HashMap::new();
    let mut all = Vec::with_capacity(work.len());
    for (at, own) in work.iter().enumerate() {
        let input = own.traffic.first().and_then(|first| known.get(&first.address)).copied();
        let produced = |argument: usize| -> Option<Contents> {
            let kernel = own.kernel;
            let next = work.get(at + 1).map_or("", |next| next.kernel);
            let is =
                |prefix: &str, out: &[usize]| kernel.starts_with(prefix) && out.contains(&argument);
            if is("gemm_i8_f32_nt", &[6]) {
                let is_logits = next.starts_with("loss_");
                return Some(if is_logits { Contents::Logits } else { Contents::Narrow });
            }
            if is("quantize_rows", &[3]) {
                return (input == Some(Contents::Logits)).then_some(Contents::OfLogits);
            }
            let is_inner = is("gemm_i8_f32_nn", &[6])
                && !is_weight_gradient(work, at)
                && input != Some(Contents::OfLogits);
            let is_attention = is("attention_forward", &[5])
                || is("attention_backward_queries", &[7])
                || is("attention_backward_keys", &[7, 8]);
            (is_inner || is_attention).then_some(Contents::Narrow)
        };
        for (argument, traffic) in own.traffic.iter().enumerate() {
            // What is added to keeps its type.
            let is_new = traffic.written_bytes > 0.0 && traffic.read_bytes == 0.0;
            if !is_new {
                continue;
            }
            match produced(argument) {
                Some(contents) => known.insert(traffic.address, contents),
                None => known.remove(&traffic.address),
            };
        }
        all.push(own.traffic.iter().map(|t| known.get(&t.address).copied()).collect());
    }
    all
}

/// Half of the bytes; and attention copies its operands to shared memory as they are, instead of rounding them on the way.
fn bf16(mut work: Vec<Work>) -> Vec<Work> {
    /// What a warp reads of floats at a time, and the turns of the first cache that it takes.
    const READ: (f64, f64) = (512.0, 4.0);
    /// Instructions for that: a load, two roundings and a store, instead of half of a copy.
    const INSTRUCTIONS: f64 = 3.5;
    let contents = contents(&work);
    for (work, contents) in work.iter_mut().zip(contents) {
        let is_tiled = work.kernel.starts_with("attention") && work.main.products() > 0.0;
        for (traffic, contents) in work.traffic.iter_mut().zip(contents) {
            if contents != Some(Contents::Narrow) {
                continue;
            }
            if is_tiled {
                let reads = traffic.block_read_bytes / READ.0;
                work.main.add(Resource::Issue, -INSTRUCTIONS * reads);
                work.main.add(Resource::Shared, -READ.1 * reads);
            }
            *traffic = traffic.times(0.5);
        }
    }
    work
}

/// One kernel over keys computes scores and their gradients once: five products instead of the four of today's kernel over keys and
/// the three over queries. It adds to the gradient of the queries in f32, in the second cache.
fn attention_backward(work: Vec<Work>) -> Vec<Work> {
    const QUERIES: &str = "attention_backward_queries";
    const DQ: usize = 7;
    let mut queries: Option<Work> = None;
    let mut changed = Vec::with_capacity(work.len());
    for mut own in work {
        if own.kernel.starts_with(QUERIES) {
            queries = Some(own);
            continue;
        }
        if own.kernel.starts_with("attention_backward_keys")
            && let Some(queries) = queries.take()
        {
            own.main = own.main * (5.0 / 4.0);
            // A third of the kernel over queries is the product that adds to the gradient of 64 queries; each of its
            // multiplications is one of 64 for an element, which is read and written.
            let added = queries.main.products() * queries.blocks / 3.0 / 64.0;
            let bytes = added / own.blocks * 2.0 * size_of::<f32>() as f64;
            let dq = queries.traffic[DQ];
            own.traffic.push(Traffic { block_read_bytes: bytes, block_written_bytes: 0.0, ..dq });
        }
        changed.push(own);
    }
    changed
}

/// The producer of a gradient leaves the largest magnitudes of its rows and columns; one kernel reads it once, and writes both of
/// its integer forms, that for the gradient of the weight as Hopper's products read it.
fn one_pass(work: Vec<Work>) -> Vec<Work> {
    let mut changed: Vec<Work> = Vec::with_capacity(work.len());
    for mut own in work {
        match own.kernel {
            "quantize_rows_f32_i8" | "column_scales_f32" | "transpose_i8" => continue,
            "column_absmax_f32" => {
                // What its maxima gather in was set to zero.
                if changed.last().is_some_and(|last| last.kernel == "zero") {
                    changed.pop();
                }
                continue;
            }
            "quantize_cols_f32_i8" => {
                own.main = own.main * 2.0;
                own.tail = own.tail * 2.0;
                for traffic in &mut own.traffic {
                    traffic.written_bytes *= 2.0;
                    traffic.block_written_bytes *= 2.0;
                }
            }
            _ => {}
        }
        changed.push(own);
    }
    changed
}

/// The end of a tile runs beside the next one; two blocks share what they read of the second operand.
fn persistent(mut work: Vec<Work>) -> Vec<Work> {
    const SECOND: usize = 2;
    for own in work.iter_mut().filter(|own| own.kernel.ends_with("_hopper")) {
        own.overlapped = true;
        own.traffic[SECOND].block_read_bytes /= 2.0;
    }
    work
}

/// Launches of the head for several blocks of the vocabulary become one. All they read and write stays, but for the gradient of the
/// hidden states, which is added to once.
fn head(work: Vec<Work>, accumulate: usize) -> Vec<Work> {
    let contents = contents(&work);
    let next = |at: usize| work.get(at + 1).map_or("", |work| work.kernel);
    let is_logits = |at: usize| is_nt(&work[at]) && next(at).starts_with("loss_");
    // From the logits of the backward pass to what the final norm does with the gradient.
    let begin = (0..work.len()).find(|&at| is_logits(at) && next(at) == "loss_gradient_f32");
    let begin = begin.unwrap_or(work.len());
    let end = (begin..work.len())
        .find(|&at| work[at].kernel.starts_with("rmsnorm_backward"))
        .unwrap_or(work.len());
    let mut changed = Vec::with_capacity(work.len());
    let mut logits = 0;
    for (at, own) in work.iter().enumerate() {
        let is_backward = (begin..end).contains(&at);
        let is_head = is_backward || is_logits(at) || own.kernel == "loss_stats_f32";
        if at == begin {
            logits = 0;
        }
        logits += usize::from(is_logits(at));
        if !is_head {
            changed.push(own.clone());
            continue;
        }
        // Backward, micro-batches follow each other within a block of the vocabulary; forward it is the other way around.
        let block = (logits - 1) / if is_backward { accumulate } else { 1 };
        if block.is_multiple_of(MERGED_BLOCKS) {
            changed.push(merged(own.clone(), contents[at].first().copied().flatten()));
        }
    }
    changed
}

/// A launch of the head for as many blocks of the vocabulary as become one.
fn merged(mut own: Work, first: Option<Contents>) -> Work {
    let factor = MERGED_BLOCKS as f64;
    let is_sum = own.kernel.starts_with("gemm_i8_f32_nn") && first == Some(Contents::OfLogits);
    if is_sum {
        // A longer contraction, whose results are written once.
        own.main = own.main * factor;
        for traffic in own.traffic.iter_mut().filter(|traffic| traffic.written_bytes == 0.0) {
            *traffic = traffic.times(factor);
        }
    } else if own.kernel.starts_with("loss_") {
        // Longer rows.
        (own.main, own.tail) = (own.main * factor, own.tail * factor);
        own.traffic.iter_mut().for_each(|traffic| *traffic = traffic.times(factor));
    } else {
        own.blocks *= factor;
        for traffic in &mut own.traffic {
            traffic.read_bytes *= factor;
            traffic.written_bytes *= factor;
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(kernel: &'static str, traffic: &[(u64, f64, f64)]) -> Work {
        let traffic = traffic.iter().map(|&(address, read_bytes, written_bytes)| Traffic {
            address,
            read_bytes,
            written_bytes,
            block_read_bytes: read_bytes,
            block_written_bytes: written_bytes,
        });
        Work::of_traffic(kernel, traffic.collect())
    }

    /// A product from addresses 1 and 2 to `out`.
    fn product(kernel: &'static str, out: (u64, f64, f64)) -> Work {
        let none = (0, 0.0, 0.0);
        work(kernel, &[(1, 8.0, 0.0), none, (2, 8.0, 0.0), none, none, none, out])
    }

    fn bytes(work: &[Work]) -> f64 {
        work.iter().flat_map(|work| &work.traffic).map(|t| t.read_bytes + t.written_bytes).sum()
    }

    #[test]
    fn bf16_is_for_activations_but_not_for_logits_sums_and_weight_gradients() {
        let narrow = vec![
            product("gemm_i8_f32_nt_hopper", (10, 0.0, 32.0)),
            work("rope_f32", &[(10, 32.0, 32.0)]),
        ];
        assert_eq!((bytes(&narrow), bytes(&bf16(narrow.clone()))), (112.0, 64.0));
        for wide in [
            vec![product("gemm_i8_f32_nt_hopper", (10, 32.0, 32.0))],
            vec![
                product("gemm_i8_f32_nt_hopper", (10, 0.0, 32.0)),
                work("loss_stats_f32", &[(10, 32.0, 0.0)]),
            ],
            vec![work("transpose_i8", &[]), product("gemm_i8_f32_nn_hopper", (10, 0.0, 32.0))],
            vec![product("gemm_i8_f32_tn_128x256", (10, 0.0, 32.0))],
        ] {
            assert_eq!(bytes(&wide), bytes(&bf16(wide.clone())), "{wide:?}");
        }
        // The same memory for something else.
        let mut again = narrow.clone();
        again.push(work("embed_hybrid_f32", &[(10, 0.0, 32.0)]));
        assert_eq!(bytes(&bf16(again)), 64.0 + 32.0);
    }

    #[test]
    fn one_kernel_of_attention_adds_to_the_gradient_of_queries() {
        let mut of_queries = vec![(0, 0.0, 0.0); 7];
        of_queries.push((20, 0.0, 80.0));
        let mut queries = work("attention_backward_queries_bf16_d128", &of_queries);
        let mut keys = work("attention_backward_keys_bf16_d128", &[(21, 8.0, 0.0)]);
        queries.main.add(Resource::Bf16, 3.0 * 64.0 * 10.0);
        keys.main.add(Resource::Bf16, 4.0);
        (queries.blocks, keys.blocks) = (2.0, 4.0);
        let changed = attention_backward(vec![queries, keys]);
        assert_eq!((changed.len(), changed[0].main.products()), (1, 5.0));
        // Twenty elements by four blocks, in the second cache; in memory the gradient is written once.
        let added = changed[0].traffic[1];
        assert_eq!((added.address, added.block_read_bytes, added.written_bytes), (20, 40.0, 80.0));
    }

    #[test]
    fn persistent_products_share_what_they_read_of_the_second_operand() {
        let kernels = ["gemm_i8_f32_nt_hopper", "gemm_i8_f32_nt_128x256"];
        let changed = persistent(kernels.map(|kernel| product(kernel, (10, 0.0, 32.0))).into());
        assert_eq!(changed.iter().map(|work| work.overlapped).collect::<Vec<_>>(), [true, false]);
        let read = |work: &Work| (work.traffic[2].block_read_bytes, work.traffic[2].read_bytes);
        assert_eq!((read(&changed[0]), read(&changed[1])), ((4.0, 8.0), (8.0, 8.0)));
    }

    #[test]
    fn larger_blocks_of_the_vocabulary_add_to_the_hidden_gradient_less_often() {
        let none = (0, 0.0, 0.0);
        let block = [
            product("gemm_i8_f32_nt_hopper", (10, 0.0, 32.0)),
            work("loss_gradient_f32", &[(10, 32.0, 32.0)]),
            work("quantize_rows_f32_i8", &[(10, 32.0, 0.0), none, none, (11, 0.0, 8.0)]),
            work(
                "gemm_i8_f32_nn_hopper",
                &[(11, 8.0, 0.0), none, (2, 8.0, 0.0), none, none, none, (12, 32.0, 32.0)],
            ),
        ];
        let blocks = std::iter::repeat_n(block.clone(), 2 * MERGED_BLOCKS);
        let mut step: Vec<_> = blocks.flatten().collect();
        step.push(work("rmsnorm_backward_f32", &[]));
        let merged = head(step, 1);
        assert_eq!(merged.len(), 2 * block.len() + 1);
        let others = bytes(&block) - 64.0;
        assert_eq!(bytes(&merged), 2.0 * (MERGED_BLOCKS as f64 * others + 64.0));
    }

    #[test]
    fn one_pass_reads_a_gradient_once() {
        let step = vec![
            work("quantize_rows_f32_i8", &[(10, 32.0, 0.0), (11, 0.0, 8.0)]),
            work("zero", &[(12, 0.0, 1.0)]),
            work("column_absmax_f32", &[(10, 32.0, 0.0), (12, 1.0, 1.0)]),
            work("quantize_cols_f32_i8", &[(10, 32.0, 0.0), (13, 0.0, 8.0)]),
            work("column_scales_f32", &[(12, 1.0, 1.0)]),
        ];
        assert_eq!(bytes(&one_pass(step)), 32.0 + 2.0 * 8.0);
    }
}
