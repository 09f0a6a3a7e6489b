//! Known answers that a device must give before it is trusted.

use crate::ops::gemm;
use crate::{Arg, Cuda, Error, Launch};
use half::bf16;
use qft_tensor::rng::BLOCK_WORDS;
use qft_tensor::{Buffer, Orientation, Owner, Philox, Purpose, RngKey};

const OP: &str = "self_test";
/// Rows and columns of a tensor-core product.
const M: usize = 16;
const N: usize = 8;
/// Its contraction in INT8 and in bf16.
const K_I8: usize = 32;
const K_BF16: usize = 16;

impl Cuda {
    /// Runs one warp: an INT8 and a bf16 tensor-core product, matrix loads from shared memory, one block of Philox.
    /// All results are exact, so they must be equal to the host's.
    ///
    /// Errors: [`Error::WrongAnswer`], or whatever fails on the way.
    pub fn self_test(&self) -> Result<(), qft_tensor::Error> {
        // Small primes in the steps: no two rows or columns are alike, so a swapped fragment shows.
        let a: Vec<i8> = (0..M * K_I8).map(|i| (i * 89 % 251) as u8 as i8).collect();
        let b: Vec<i8> = (0..N * K_I8).map(|i| (i * 57 % 241) as u8 as i8).collect();
        let fa: Vec<bf16> =
            (0..M * K_BF16).map(|i| bf16::from_f32((i * 37 % 31) as f32 - 15.0)).collect();
        let fb: Vec<bf16> =
            (0..N * K_BF16).map(|i| bf16::from_f32((i * 29 % 23) as f32 - 11.0)).collect();
        let key = RngKey::new(0x0123_4567_89AB_CDEF, 5, 7, Purpose::SelfTest);
        let block = 13;

        let upload_i8 = |values: &[i8]| Buffer::from_host(self, Owner::Workspace, OP, values);
        let upload_bf16 = |values: &[bf16]| Buffer::from_host(self, Owner::Workspace, OP, values);
        let (device_a, device_b) = (upload_i8(&a)?, upload_i8(&b)?);
        let (device_fa, device_fb) = (upload_bf16(&fa)?, upload_bf16(&fb)?);
        let mut products = Buffer::<i32>::zeros(self, Owner::Workspace, OP, M * N)?;
        let mut sums = Buffer::<f32>::zeros(self, Owner::Workspace, OP, M * N)?;
        let mut words = Buffer::<u32>::zeros(self, Owner::Workspace, OP, BLOCK_WORDS)?;
        let mut loads = Buffer::<u32>::zeros(self, Owner::Workspace, OP, 2 * 4 * 32)?;
        let args = [
            self.read(OP, &device_a)?,
            self.read(OP, &device_b)?,
            self.read(OP, &device_fa)?,
            self.read(OP, &device_fb)?,
            self.write(OP, &mut products)?,
            self.write(OP, &mut sums)?,
            self.write(OP, &mut words)?,
            self.write(OP, &mut loads)?,
            Arg::U64(key.seed()),
            Arg::U32(key.step()),
            Arg::U32(key.tensor()),
            Arg::U32(key.purpose_word()),
            Arg::U32(block),
        ];
        self.launch(OP, "self_test", Launch::blocks(1, 32), &args)?;

        let dot = |m: usize, n: usize| -> i32 {
            (0..K_I8).map(|k| i32::from(a[m * K_I8 + k]) * i32::from(b[n * K_I8 + k])).sum()
        };
        let float_dot = |m: usize, n: usize| -> f32 {
            (0..K_BF16).map(|k| fa[m * K_BF16 + k].to_f32() * fb[n * K_BF16 + k].to_f32()).sum()
        };
        let cells = || (0..M * N).map(|i| (i / N, i % N));
        self.expect("an INT8 product", &products, cells().map(|(m, n)| dot(m, n)).collect())?;
        self.expect("a bf16 product", &sums, cells().map(|(m, n)| float_dot(m, n)).collect())?;
        self.expect("Philox", &words, Philox::new(key).block(block).to_vec())?;
        self.expect("matrix loads", &loads, expected_loads(&a))
    }

    /// One tile of each product for Hopper, with more steps than its pipeline holds.
    ///
    /// Errors: [`Error::WrongAnswer`], or whatever fails on the way.
    pub(crate) fn test_warpgroup_products(&self) -> Result<(), qft_tensor::Error> {
        let k = 6 * 128;
        for (orientation, m, n) in [(Orientation::Nt, 128, 256), (Orientation::Nn, 256, 128)] {
            let values = |len: usize, step: usize, modulus: usize| -> Vec<i8> {
                (0..len).map(|i| (i * step % modulus) as u8 as i8).collect()
            };
            let (a, b) = (values(m * k, 89, 251), values(n * k, 57, 241));
            let upload = |values: &[i8]| Buffer::from_host(self, Owner::Workspace, OP, values);
            let (device_a, device_b) = (upload(&a)?, upload(&b)?);
            let mut out = Buffer::<f32>::zeros(self, Owner::Workspace, OP, m * n)?;
            let size = |size: usize| Arg::U32(size as u32);
            let (kernel, launch) = gemm::hopper(orientation, m, n);
            let is_nt = orientation == Orientation::Nt;
            let args = [
                self.read(OP, &device_a)?,
                Arg::size(k),
                self.read(OP, &device_b)?,
                Arg::size(if is_nt { k } else { n }),
                Arg::NULL,
                Arg::NULL,
                self.write(OP, &mut out)?,
                Arg::size(n),
                size(m),
                size(n),
                size(k),
                Arg::U32(0),
            ];
            self.launch(OP, kernel, launch, &args)?;
            // Sums below 2^24, which floats hold exactly.
            let cell = |i: usize| -> f32 {
                let (row, column) = (i / n, i % n);
                let b = |step: usize| b[if is_nt { column * k + step } else { step * n + column }];
                let products = a[row * k..][..k].iter().enumerate();
                products.map(|(step, &a)| i32::from(a) * i32::from(b(step))).sum::<i32>() as f32
            };
            self.expect("products of warpgroups", &out, (0..m * n).map(cell).collect())?;
        }
        Ok(())
    }

    fn expect<T: qft_tensor::Element + PartialEq>(
        &self,
        what: &'static str,
        got: &Buffer<T>,
        expected: Vec<T>,
    ) -> Result<(), qft_tensor::Error> {
        if got.to_vec(self)? == expected {
            return Ok(());
        }
        let device = self.driver().properties().name.clone();
        Err(Error::WrongAnswer { device, what }.during(OP))
    }
}

/// What the lanes of a warp receive from the four 8 x 8 matrices of 16-bit elements that `a` is, row by row: first
/// as they stand, then transposed. Order: matrix, lane.
fn expected_loads(a: &[i8]) -> Vec<u32> {
    let element = |m: usize, row: usize, col: usize| {
        let at = ((m * 8 + row) * 8 + col) * 2;
        u32::from(u16::from_le_bytes([a[at] as u8, a[at + 1] as u8]))
    };
    let cells = || (0..4 * 32).map(|i| (i / 32, i % 32 / 4, i % 4));
    let plain = cells().map(|(m, g, t)| element(m, g, 2 * t) | element(m, g, 2 * t + 1) << 16);
    let turned = cells().map(|(m, g, t)| element(m, 2 * t, g) | element(m, 2 * t + 1, g) << 16);
    plain.chain(turned).collect()
}
