//! The walk through all parameters.

use super::{AttentionParams, BlockParams, Linear, MlpParams, Param, Params};
use std::convert::Infallible;

/// What becomes of each parameter, in turn.
pub trait Map<M, V> {
    /// What a matrix becomes.
    type Matrix;
    /// What a vector becomes.
    type Vector;
    /// Why it does not.
    type Error;

    /// The next parameter is this matrix.
    ///
    /// Errors: those of the implementation.
    fn matrix(&mut self, matrix: M) -> Result<Self::Matrix, Self::Error>;

    /// The next parameter is this vector.
    ///
    /// Errors: those of the implementation.
    fn vector(&mut self, vector: V) -> Result<Self::Vector, Self::Error>;
}

impl<M, V> Linear<M, V> {
    fn map<F: Map<M, V>>(self, f: &mut F) -> Result<Linear<F::Matrix, F::Vector>, F::Error> {
        let Self { weight, bias } = self;
        Ok(Linear { weight: f.matrix(weight)?, bias: bias.map(|v| f.vector(v)).transpose()? })
    }

    fn as_ref(&self) -> Linear<&M, &V> {
        let Self { weight, bias } = self;
        Linear { weight, bias: bias.as_ref() }
    }

    fn as_mut(&mut self) -> Linear<&mut M, &mut V> {
        let Self { weight, bias } = self;
        Linear { weight, bias: bias.as_mut() }
    }
}

impl<M, V> AttentionParams<M, V> {
    fn map<F: Map<M, V>>(
        self,
        f: &mut F,
    ) -> Result<AttentionParams<F::Matrix, F::Vector>, F::Error> {
        let Self { q, k, v, q_norm, k_norm, o } = self;
        Ok(AttentionParams {
            q: q.map(f)?,
            k: k.map(f)?,
            v: v.map(f)?,
            q_norm: q_norm.map(|v| f.vector(v)).transpose()?,
            k_norm: k_norm.map(|v| f.vector(v)).transpose()?,
            o: o.map(f)?,
        })
    }

    fn as_ref(&self) -> AttentionParams<&M, &V> {
        let Self { q, k, v, q_norm, k_norm, o } = self;
        let (q_norm, k_norm) = (q_norm.as_ref(), k_norm.as_ref());
        let (q, k, v, o) = (q.as_ref(), k.as_ref(), v.as_ref(), o.as_ref());
        AttentionParams { q, k, v, q_norm, k_norm, o }
    }

    fn as_mut(&mut self) -> AttentionParams<&mut M, &mut V> {
        let Self { q, k, v, q_norm, k_norm, o } = self;
        let (q_norm, k_norm) = (q_norm.as_mut(), k_norm.as_mut());
        let (q, k, v, o) = (q.as_mut(), k.as_mut(), v.as_mut(), o.as_mut());
        AttentionParams { q, k, v, q_norm, k_norm, o }
    }
}

impl<M, V> MlpParams<M, V> {
    fn map<F: Map<M, V>>(self, f: &mut F) -> Result<MlpParams<F::Matrix, F::Vector>, F::Error> {
        let Self { gate, up, down } = self;
        Ok(MlpParams { gate: gate.map(f)?, up: up.map(f)?, down: down.map(f)? })
    }

    fn as_ref(&self) -> MlpParams<&M, &V> {
        let Self { gate, up, down } = self;
        MlpParams { gate: gate.as_ref(), up: up.as_ref(), down: down.as_ref() }
    }

    fn as_mut(&mut self) -> MlpParams<&mut M, &mut V> {
        let Self { gate, up, down } = self;
        MlpParams { gate: gate.as_mut(), up: up.as_mut(), down: down.as_mut() }
    }
}

impl<M, V> BlockParams<M, V> {
    /// What becomes of each parameter, in order.
    ///
    /// Errors: the first of `f`.
    pub fn map<F: Map<M, V>>(
        self,
        f: &mut F,
    ) -> Result<BlockParams<F::Matrix, F::Vector>, F::Error> {
        let Self { attention_norm, attention, mlp_norm, mlp } = self;
        Ok(BlockParams {
            attention_norm: f.vector(attention_norm)?,
            attention: attention.map(f)?,
            mlp_norm: f.vector(mlp_norm)?,
            mlp: mlp.map(f)?,
        })
    }

    /// The same of references.
    pub fn as_ref(&self) -> BlockParams<&M, &V> {
        let Self { attention_norm, attention, mlp_norm, mlp } = self;
        let (attention, mlp) = (attention.as_ref(), mlp.as_ref());
        BlockParams { attention_norm, attention, mlp_norm, mlp }
    }

    fn as_mut(&mut self) -> BlockParams<&mut M, &mut V> {
        let Self { attention_norm, attention, mlp_norm, mlp } = self;
        let (attention, mlp) = (attention.as_mut(), mlp.as_mut());
        BlockParams { attention_norm, attention, mlp_norm, mlp }
    }

    fn matrices(self) -> Vec<M> {
        let mut list = List(Vec::new());
        let Ok(_) = self.map(&mut list);
        matrices(list.0)
    }
}

impl<M, V> Params<M, V> {
    /// What becomes of each parameter, in order.
    ///
    /// Errors: the first of `f`.
    pub fn map<F: Map<M, V>>(self, f: &mut F) -> Result<Params<F::Matrix, F::Vector>, F::Error> {
        let Self { embedding, blocks, norm, head } = self;
        Ok(Params {
            embedding: f.matrix(embedding)?,
            blocks: blocks.into_iter().map(|block| block.map(f)).collect::<Result<_, _>>()?,
            norm: f.vector(norm)?,
            head: head.map(|m| f.matrix(m)).transpose()?,
        })
    }

    /// The same of references.
    pub fn as_ref(&self) -> Params<&M, &V> {
        let Self { embedding, blocks, norm, head } = self;
        let blocks = blocks.iter().map(BlockParams::as_ref).collect();
        Params { embedding, blocks, norm, head: head.as_ref() }
    }

    /// The same of references to write to.
    pub fn as_mut(&mut self) -> Params<&mut M, &mut V> {
        let Self { embedding, blocks, norm, head } = self;
        let blocks = blocks.iter_mut().map(BlockParams::as_mut).collect();
        Params { embedding, blocks, norm, head: head.as_mut() }
    }

    /// All of them, in order.
    pub fn list(self) -> Vec<Param<M, V>> {
        let mut list = List(Vec::new());
        let Ok(_) = self.map(&mut list);
        list.0
    }

    /// All matrices, in order.
    pub fn matrices(self) -> Vec<M> {
        matrices(self.list())
    }

    /// The block of this index, and the matrices of what comes behind it: the next block, or the head.
    pub(crate) fn block_and_behind(
        &mut self,
        index: usize,
    ) -> (&mut BlockParams<M, V>, Vec<&mut M>) {
        let (until, after) = self.blocks.split_at_mut(index + 1);
        let behind = match after.first_mut() {
            Some(next) => next.as_mut().matrices(),
            None => self.head.as_mut().into_iter().collect(),
        };
        (&mut until[index], behind)
    }
}

fn matrices<M, V>(params: Vec<Param<M, V>>) -> Vec<M> {
    let matrix = |param| if let Param::Matrix(matrix) = param { Some(matrix) } else { None };
    params.into_iter().filter_map(matrix).collect()
}

/// Collects parameters.
struct List<M, V>(Vec<Param<M, V>>);

impl<M, V> Map<M, V> for List<M, V> {
    type Matrix = ();
    type Vector = ();
    type Error = Infallible;

    fn matrix(&mut self, matrix: M) -> Result<(), Infallible> {
        self.0.push(Param::Matrix(matrix));
        Ok(())
    }

    fn vector(&mut self, vector: V) -> Result<(), Infallible> {
        self.0.push(Param::Vector(vector));
        Ok(())
    }
}
