//! Weights, and the index of weights in several files.

use super::{SMALL, Target, scratch};
use qft_files::safetensors::read_index;
use qft_files::{Advice, TensorFile};
use std::path::Path;

/// A `model.safetensors`: its header, and every byte of every tensor.
pub const SAFETENSORS: Target =
    Target { name: "safetensors", run: read_tensors, base_bytes: SMALL };

/// A `model.safetensors.index.json`.
pub const INDEX: Target = Target { name: "index", run: read_shards, base_bytes: SMALL };

fn read_tensors(bytes: &[u8]) {
    let path = scratch::write(&scratch::folder("safetensors"), "model.safetensors", bytes);
    let Ok(file) = TensorFile::open(&path, Advice { missing: "", damaged: "" }) else { return };
    let mut total = 0;
    let mut data = vec![0; bytes.len()];
    for tensor in file.tensors() {
        let data = &mut data[..tensor.bytes as usize];
        file.read_at(tensor, 0, data).expect("a tensor of a checked header can be read");
        let start = tensor.start as usize;
        assert_eq!(data, &bytes[start..start + data.len()], "{}", tensor.name);
        assert!(file.read_at(tensor, tensor.bytes, &mut [0]).is_err(), "its end");
        assert!(file.read_at(tensor, u64::MAX, &mut [0]).is_err(), "far beyond its end");
        total += data.len();
    }
    assert!(total < bytes.len(), "the data is a part of the file");
}

fn read_shards(bytes: &[u8]) {
    let path = scratch::write(&scratch::folder("index"), "index.json", bytes);
    let Ok(map) = read_index(&path, "") else { return };
    for shard in map.values() {
        let inside = Path::new("folder").join(shard);
        assert_eq!(inside.parent(), Some(Path::new("folder")), "{shard:?} is beside the index");
        assert!(!matches!(shard.as_str(), "" | "." | ".."), "{shard:?} is a file");
    }
}
