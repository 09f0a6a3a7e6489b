//! What differs from layer to layer: positions, and how far attention sees.

use super::{Family, LlamaConfig};

/// How a layer encodes positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerRope {
    /// Not at all.
    None,
    /// By the frequencies of the configuration's `theta` alone; see [`LlamaConfig::plain_inv_freq`].
    Plain,
    /// By the configuration's rope, rescaled if it says so.
    #[default]
    Scaled,
}

/// The kind of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayerKind {
    /// How it encodes positions.
    pub rope: LayerRope,
    /// How many tokens a token sees, itself included; `None` for all before it.
    pub window: Option<usize>,
}

/// In some families every fourth layer is another kind.
const PERIOD: usize = 4;

impl LayerKind {
    /// The layers that a family has unless its configuration says otherwise; `window` is that of the layers that
    /// have one.
    pub(super) fn usual(family: Family, count: usize, window: Option<usize>) -> Vec<Self> {
        let kind = |layer: usize| {
            let fourth = (layer + 1).is_multiple_of(PERIOD);
            match family {
                Family::SmolLm3 if fourth => Self { rope: LayerRope::None, window: None },
                Family::Olmo3 if fourth => Self::default(),
                Family::Olmo3 => Self { rope: LayerRope::Plain, window },
                _ => Self { rope: LayerRope::Scaled, window },
            }
        };
        (0..count).map(kind).collect()
    }
}

impl LlamaConfig {
    /// The same model with another number of layers, each of the kind that the last one had where there were fewer.
    #[must_use]
    pub fn with_layers(mut self, count: usize) -> Self {
        let last = self.layers.last().copied().unwrap_or_default();
        self.layers.resize(count, last);
        self.num_hidden_layers = count;
        self
    }

    /// The shortest window of all layers.
    pub fn shortest_window(&self) -> Option<usize> {
        self.layers.iter().filter_map(|layer| layer.window).min()
    }

    /// The longest sequence, in tokens, that the model computes: no longer than its positions, nor than its shortest
    /// window, as within the window a token sees all that came before it.
    pub fn longest_sequence(&self) -> usize {
        self.shortest_window().unwrap_or(usize::MAX).min(self.max_position_embeddings)
    }
}
