//! The wide channels of every input of a model's linear layers: a small state beside the parameters.
//!
//! A step quantizes all its tokens with the channels that the step before it chose, and takes the maxima of its own
//! activations for the step after it. So a token is quantized alike however the batch is cut into micro-batches, and
//! when a block is computed again. [`crate::pass::calibrate`] chooses for a model that has not been trained yet.

use crate::config::LlamaConfig;
use qft_autograd::{Activations, Error, LayerOps};
use qft_tensor::{Buffer, Device, MatMut, NO_CHANNEL, Owner, RaiseMaxima, SelectWide, Span, WIDE};

/// The inputs of a block's linear layers, in the order of the table.
pub const BLOCK_INPUTS: [&str; 4] =
    ["normed for attention", "attention output", "normed for MLP", "activated"];

/// The input of the head, last in the table.
pub const HEAD_INPUT: &str = "normed for head";

/// The wide channels of a block's inputs.
pub(crate) type BlockWide<'a> = [Span<'a, u32>; BLOCK_INPUTS.len()];

/// The wide channels of all inputs.
#[derive(Debug)]
pub struct WideTable {
    /// u32 `[4 L + 1, WIDE]`: block by block in the order of [`BLOCK_INPUTS`], then the head; in each row distinct
    /// channels in rising order, then [`NO_CHANNEL`].
    pub channels: Buffer<u32>,
    /// Whether they were chosen, by a step or by calibration: before that there are none.
    pub chosen: bool,
}

/// The wide channels of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WideInput {
    /// Which block; none for the head.
    pub block: Option<usize>,
    /// Which of its inputs.
    pub input: &'static str,
    /// The channels, rising; none if all are alike.
    pub channels: Vec<u32>,
}

fn no_channels(device: &dyn Device, config: &LlamaConfig) -> Result<Buffer<u32>, Error> {
    let inputs = BLOCK_INPUTS.len() * config.num_hidden_layers + 1;
    let none = vec![NO_CHANNEL; inputs * WIDE];
    Ok(Buffer::from_host(device, Owner::Scales, "wide channels", &none)?)
}

/// The places of input `index` of a table.
fn span(channels: &Buffer<u32>, index: usize) -> Result<Span<'_, u32>, Error> {
    Ok(channels.span(index * WIDE..(index + 1) * WIDE)?)
}

/// The same, to write to.
fn row(channels: &mut Buffer<u32>, index: usize) -> Result<MatMut<'_, u32>, Error> {
    Ok(channels.mat_mut(channels.len() / WIDE, WIDE)?.row_range(index..index + 1)?)
}

impl WideTable {
    pub(crate) fn new(device: &dyn Device, config: &LlamaConfig) -> Result<Self, Error> {
        Ok(Self { channels: no_channels(device, config)?, chosen: false })
    }

    pub(crate) fn block(&self, index: usize) -> Result<BlockWide<'_>, Error> {
        let at = |input| span(&self.channels, BLOCK_INPUTS.len() * index + input);
        Ok([at(0)?, at(1)?, at(2)?, at(3)?])
    }

    pub(crate) fn head(&self) -> Result<Span<'_, u32>, Error> {
        span(&self.channels, self.channels.len() / WIDE - 1)
    }

    /// The channels of every input, copied to the host.
    pub fn inputs(&self, device: &dyn Device) -> Result<Vec<WideInput>, Error> {
        let channels = self.channels.to_vec(device)?;
        let rows = channels.as_chunks::<WIDE>().0;
        let name = |index: usize| match BLOCK_INPUTS.get(index % BLOCK_INPUTS.len()) {
            Some(&input) if index + 1 < rows.len() => (Some(index / BLOCK_INPUTS.len()), input),
            _ => (None, HEAD_INPUT),
        };
        let inputs = rows.iter().enumerate().map(|(index, row)| {
            let (block, input) = name(index);
            let used = row.iter().copied().take_while(|&channel| channel != NO_CHANNEL);
            WideInput { block, input, channels: used.collect() }
        });
        Ok(inputs.collect())
    }

    /// Takes what a file has put into `channels` for a choice.
    ///
    /// Errors: [`crate::Error::WideChannels`] for a row that is not one of a model with this configuration.
    pub fn restore(
        &mut self,
        device: &dyn Device,
        config: &LlamaConfig,
    ) -> Result<(), crate::Error> {
        let channels = self.channels.to_vec(device)?;
        let rows = channels.as_chunks::<WIDE>().0;
        let widths = widths(config);
        for (index, row) in rows.iter().enumerate() {
            let width = if index + 1 < rows.len() {
                widths[index % BLOCK_INPUTS.len()]
            } else {
                config.hidden_size
            };
            let used = row.iter().take_while(|&&channel| (channel as usize) < width).count();
            let (channels, unused) = row.split_at(used);
            if !channels.is_sorted_by(|a, b| a < b) || unused.iter().any(|&c| c != NO_CHANNEL) {
                return Err(crate::Error::WideChannels { input: index, channels: *row });
            }
        }
        self.chosen = true;
        Ok(())
    }
}

/// The channels of each of [`BLOCK_INPUTS`].
fn widths(config: &LlamaConfig) -> [usize; BLOCK_INPUTS.len()] {
    let channels = config.hidden_size;
    [channels, config.query_size(), channels, config.intermediate_size]
}

/// A choice in the making, layer by layer.
pub(crate) struct NextWideChannels {
    /// Of the layer that is run now, f32 `[K]` for each of [`BLOCK_INPUTS`]; the first serves the head, too.
    maxima: [Buffer<f32>; BLOCK_INPUTS.len()],
    channels: Buffer<u32>,
}

impl NextWideChannels {
    pub(crate) fn new(ops: &dyn LayerOps, config: &LlamaConfig) -> Result<Self, Error> {
        let maxima = |width| Buffer::zeros(ops, Owner::Workspace, "channel maxima", width);
        let [a, b, c, d] = widths(config);
        Ok(Self {
            maxima: [maxima(a)?, maxima(b)?, maxima(c)?, maxima(d)?],
            channels: no_channels(ops, config)?,
        })
    }

    /// Sees the inputs of a block for one micro-batch.
    pub(crate) fn see(
        &mut self,
        ops: &dyn LayerOps,
        inputs: [&Activations; 4],
    ) -> Result<(), Error> {
        for (input, maxima) in inputs.into_iter().zip(&mut self.maxima) {
            raise(ops, input, maxima)?;
        }
        Ok(())
    }

    /// Sees the input of the head for one micro-batch.
    pub(crate) fn see_head(
        &mut self,
        ops: &dyn LayerOps,
        input: &Activations,
    ) -> Result<(), Error> {
        raise(ops, input, &mut self.maxima[0])
    }

    /// Chooses for block `index`, whose micro-batches have all been seen.
    pub(crate) fn choose(&mut self, ops: &dyn LayerOps, index: usize) -> Result<(), Error> {
        for (input, maxima) in self.maxima.iter_mut().enumerate() {
            let choice = row(&mut self.channels, BLOCK_INPUTS.len() * index + input)?;
            ops.select_wide(SelectWide { maxima, choice })?;
            maxima.fill_zero(ops)?;
        }
        Ok(())
    }

    /// Chooses for the head, and ends: the table of the next step.
    pub(crate) fn finish(mut self, ops: &dyn LayerOps) -> Result<WideTable, Error> {
        let (maxima, last) = (&self.maxima[0], self.channels.len() / WIDE - 1);
        ops.select_wide(SelectWide { maxima, choice: row(&mut self.channels, last)? })?;
        Ok(WideTable { channels: self.channels, chosen: true })
    }
}

fn raise(ops: &dyn LayerOps, input: &Activations, maxima: &mut Buffer<f32>) -> Result<(), Error> {
    match input {
        Activations::Int8(x) => Ok(ops.raise_maxima(RaiseMaxima { x, maxima })?),
        Activations::Float { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_tensor::{Cpu, CpuConfig, Isa};

    /// The inputs of a table whose first row a file says is this one.
    fn restored(row: [u32; WIDE]) -> Result<Vec<WideInput>, crate::Error> {
        let config = LlamaConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
                "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 32,
                "max_position_embeddings": 16, "rms_norm_eps": 1e-5}"#,
        )?;
        let cpu = Cpu::new(CpuConfig { threads: 1, isa: Isa::SCALAR })?;
        let mut table = WideTable::new(&cpu, &config)?;
        assert!(!table.chosen && table.inputs(&cpu)?.len() == 9);
        table.channels.upload(&cpu, 0, &row)?;
        table.restore(&cpu, &config)?;
        assert!(table.chosen);
        Ok(table.inputs(&cpu)?)
    }

    #[test]
    fn a_table_from_a_file_must_be_one_of_this_model() {
        let mut row = [NO_CHANNEL; WIDE];
        (row[0], row[1]) = (3, 63);
        let inputs = restored(row).expect("a sound table");
        assert_eq!((inputs[0].block, inputs[0].input), (Some(0), BLOCK_INPUTS[0]));
        assert_eq!(inputs[0].channels, [3, 63]);
        assert_eq!((inputs[8].block, inputs[8].input), (None, HEAD_INPUT));
        assert!(inputs[1..].iter().all(|input| input.channels.is_empty()));
        for broken in [[64, NO_CHANNEL], [5, 5], [9, 2], [NO_CHANNEL, 1]] {
            (row[0], row[1]) = (broken[0], broken[1]);
            let error = restored(row).expect_err("channels that this input does not have");
            assert!(error.to_string().contains("wide channels of input 0"), "{error}");
        }
    }
}
