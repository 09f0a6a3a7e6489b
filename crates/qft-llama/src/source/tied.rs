//! Whether a head that is stored beside a tied embedding holds the same values.

use super::{CHUNK_BYTES, EMBEDDING, HEAD, decode};
use crate::error::Error;
use qft_files::{Dtype, StoredTensor, TensorFile};

/// A tensor, and the file it is in.
pub(super) type Stored<'a> = (&'a TensorFile, &'a StoredTensor);

/// Compares block by block.
///
/// Errors: [`Error::TiedHead`] if a value differs, or the shape does; [`Error::Files`].
pub(super) fn check(embedding: Stored<'_>, head: Stored<'_>) -> Result<(), Error> {
    let differs = |row: usize| Error::TiedHead {
        file: head.0.path().to_path_buf(),
        head: HEAD,
        embedding: EMBEDDING,
        row,
    };
    let readable = |stored: Stored<'_>| {
        matches!(stored.1.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) && stored.1.shape.len() == 2
    };
    if !readable(embedding) {
        // It is refused for itself.
        return Ok(());
    }
    if !readable(head) || head.1.shape != embedding.1.shape {
        return Err(differs(0));
    }
    let elements: usize = head.1.shape.iter().product();
    let step = CHUNK_BYTES / size_of::<f32>();
    let (mut a, mut b) = (vec![0.0; step], vec![0.0; step]);
    for first in (0..elements).step_by(step) {
        let count = step.min(elements - first);
        read(embedding, first, &mut a[..count])?;
        read(head, first, &mut b[..count])?;
        let pairs = a[..count].iter().zip(&b[..count]);
        // Two that are no numbers are the same if their bits are; loading the embedding refuses them.
        let same = |(a, b): (&f32, &f32)| a == b || a.to_bits() == b.to_bits();
        if let Some(place) = pairs.into_iter().position(|pair| !same(pair)) {
            return Err(differs((first + place) / head.1.shape[1]));
        }
    }
    Ok(())
}

fn read(stored: Stored<'_>, first: usize, out: &mut [f32]) -> Result<(), Error> {
    let width = stored.1.dtype.bitsize() / 8;
    let mut bytes = vec![0; out.len() * width];
    stored.0.read_at(stored.1, (first * width) as u64, &mut bytes)?;
    // Whether the values are finite is asked when the model is loaded.
    let _not_finite = decode(stored.1.dtype, &bytes, out);
    Ok(())
}
