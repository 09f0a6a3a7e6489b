//! bf16 on the GPU: `kernels/convert.cu`.

use crate::{Arg, Cuda, Launch};
use qft_autograd::Error;
use qft_autograd::ops::{FromBf16, ToBf16};

/// Threads of a block, as in the kernel.
const THREADS: u32 = 256;
/// Elements of a thread at once, in the vector path.
const VECTOR: usize = 4;
/// More blocks than these would not fill a GPU better.
const MOST_BLOCKS: u32 = 4096;

fn launch(count: usize) -> Launch {
    Launch::strided(count, THREADS as usize * VECTOR, THREADS, MOST_BLOCKS)
}

impl Cuda {
    /// See [`ToBf16`].
    pub fn convert_to_bf16(&self, op: ToBf16<'_>) -> Result<(), Error> {
        const OP: &str = "to_bf16";
        op.check()?;
        let count = op.src.len();
        let args = [self.read(OP, op.src)?, self.write(OP, op.dst)?, Arg::size(count)];
        Ok(self.launch(OP, "to_bf16_f32_bf16", launch(count), &args)?)
    }

    /// See [`FromBf16`].
    pub fn convert_from_bf16(&self, op: FromBf16<'_>) -> Result<(), Error> {
        const OP: &str = "from_bf16";
        op.check()?;
        let count = op.src.len();
        let args = [self.read(OP, op.src)?, self.write(OP, op.dst)?, Arg::size(count)];
        Ok(self.launch(OP, "from_bf16_bf16_f32", launch(count), &args)?)
    }
}
