//! Groups of parameters whose learning rate may be another than that of the rest.

use qft_autograd::{Matrix, TensorId, Vector};
use qft_llama::params::{Param, Params};
use serde::{Deserialize, Serialize};

/// A group of parameters. The matrices of blocks are in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The embedding; where it is the output head as well, that is with it.
    Embeddings,
    /// The output head, if it is a matrix of its own.
    Head,
    /// Gains of norms.
    Norms,
    /// Biases of linear layers.
    Biases,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Embeddings, Self::Head, Self::Norms, Self::Biases];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::Head => "head",
            Self::Norms => "norms",
            Self::Biases => "biases",
        }
    }
}

/// By what the learning rate is multiplied for the parameters of each group.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroupFactors {
    /// For [`Group::Embeddings`].
    pub embeddings: f32,
    /// For [`Group::Head`].
    pub head: f32,
    /// For [`Group::Norms`].
    pub norms: f32,
    /// For [`Group::Biases`].
    pub biases: f32,
}

impl Default for GroupFactors {
    /// The same learning rate for all.
    fn default() -> Self {
        Self { embeddings: 1.0, head: 1.0, norms: 1.0, biases: 1.0 }
    }
}

impl GroupFactors {
    /// The factor of each of a model's parameters, in their order.
    pub fn by_tensor(&self, params: &Params<Matrix, Vector>) -> Vec<f32> {
        let head = params.head.as_ref().map(|head| head.id);
        let biases: Vec<TensorId> = (params.blocks.iter())
            .flat_map(|block| {
                let (attention, mlp) = (&block.attention, &block.mlp);
                let linear = [&attention.q, &attention.k, &attention.v, &attention.o];
                linear.into_iter().chain([&mlp.gate, &mlp.up, &mlp.down])
            })
            .filter_map(|linear| Some(linear.bias.as_ref()?.id))
            .collect();
        let factor = |param: Param<&Matrix, &Vector>| match param {
            Param::Matrix(matrix) if matrix.id == params.embedding.id => self.embeddings,
            Param::Matrix(matrix) if Some(matrix.id) == head => self.head,
            Param::Matrix(_) => 1.0,
            Param::Vector(vector) if biases.contains(&vector.id) => self.biases,
            Param::Vector(_) => self.norms,
        };
        params.as_ref().list().into_iter().map(factor).collect()
    }
}
