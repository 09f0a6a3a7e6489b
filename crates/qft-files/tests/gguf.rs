//! GGUF files read by a reader that shares no code with the writer, and what the writer refuses.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_files::{Disk, Error, GgufTensor, GgufType, GgufValue, GgufWriter};
use qft_testing::gguf::{self, Tensor, Value};
use std::path::Path;

fn tensor(name: &str, kind: GgufType, shape: &[usize]) -> GgufTensor {
    GgufTensor { name: name.into(), kind, shape: shape.to_vec() }
}

fn begin(
    path: &Path,
    metadata: &[(&str, GgufValue)],
    tensors: &[GgufTensor],
) -> Result<GgufWriter, Error> {
    let metadata: Vec<_> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    GgufWriter::begin(Disk::default().create(path).unwrap(), &metadata, tensors)
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.gguf");
    let metadata = [
        ("general.architecture", GgufValue::Text("llama".into())),
        ("count", GgufValue::U32(u32::MAX)),
        ("eps", GgufValue::F32(1e-5)),
        ("yes", GgufValue::Bool(true)),
        ("kinds", GgufValue::I32s(vec![1, -6])),
        ("scores", GgufValue::F32s(vec![-1.5, 0.0])),
        ("pattern", GgufValue::Bools(vec![true, false])),
        ("tokens", GgufValue::Texts(vec!["\u{2581}t".into(), String::new()])),
    ];
    // Lengths that need filling up, and one that needs none.
    let tensors = [
        tensor("norm", GgufType::F32, &[3]),
        tensor("table", GgufType::Bf16, &[2, 3]),
        tensor("codes", GgufType::Q8_0, &[2, 32]),
        tensor("halves", GgufType::F16, &[1, 16]),
    ];
    let mut writer = begin(&path, &metadata, &tensors).unwrap();
    let norm: Vec<u8> = [1.0f32, -2.5, 0.1].iter().flat_map(|v| v.to_le_bytes()).collect();
    let table: Vec<u8> = [0x3f80u16, 0xbf00, 0, 0x4000, 0x4040, 0x3e80]
        .iter()
        .flat_map(|bits| bits.to_le_bytes())
        .collect();
    // A scale of 0.5 and one of 2^-24, the smallest.
    let codes: Vec<u8> = [0x3800u16, 1]
        .iter()
        .flat_map(|bits| {
            bits.to_le_bytes().into_iter().chain((0..32).map(|i| (i * 8 - 127_i32) as i8 as u8))
        })
        .collect();
    let halves: Vec<u8> = (0..16u16).flat_map(|i| (0x3c00 + i).to_le_bytes()).collect();
    writer.write(&norm[..5]).unwrap();
    writer.write(&norm[5..]).unwrap();
    writer.write(&table).unwrap();
    for row in codes.chunks(34) {
        writer.write(row).unwrap();
    }
    writer.write(&halves).unwrap();
    writer.finish().unwrap();

    let read = gguf::read(&path);
    let expected = [
        ("general.architecture", Value::Text("llama".into())),
        ("count", Value::Number(f64::from(u32::MAX))),
        ("eps", Value::Number(f64::from(1e-5f32))),
        ("yes", Value::Number(1.0)),
        ("kinds", Value::Numbers(vec![1.0, -6.0])),
        ("scores", Value::Numbers(vec![-1.5, 0.0])),
        ("pattern", Value::Numbers(vec![1.0, 0.0])),
        ("tokens", Value::Texts(vec!["\u{2581}t".into(), String::new()])),
    ];
    assert_eq!(read.metadata, expected.map(|(key, value)| (key.to_owned(), value)).into());
    let got = |name: &str| read.tensors[name].clone();
    let tensor =
        |shape: &[usize], kind, values: Vec<f32>| Tensor { shape: shape.to_vec(), kind, values };
    assert_eq!(got("norm"), tensor(&[3], 0, vec![1.0, -2.5, 0.1]));
    assert_eq!(got("table"), tensor(&[2, 3], 30, vec![1.0, -0.5, 0.0, 2.0, 3.0, 0.25]));
    let code = |i: i32| (i * 8 - 127) as f32;
    let blocks = (0..64).map(|i| code(i % 32) * if i < 32 { 0.5 } else { 2f32.powi(-24) });
    assert_eq!(got("codes"), tensor(&[2, 32], 8, blocks.collect()));
    let ones = (0..16).map(|i| 1.0 + i as f32 / 1024.0);
    assert_eq!(got("halves"), tensor(&[1, 16], 1, ones.collect()));
}

#[test]
fn wrong_names_sizes_and_lengths_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, result: Result<(), Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Gguf { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    let number = || ("a", GgufValue::U32(1));
    let path = |name: &str| dir.path().join(name);
    let twice = begin(&path("1"), &[number(), number()], &[]);
    refused("`a` occurs twice", twice.map(drop));
    let one = tensor("t", GgufType::F16, &[2, 2]);
    refused("`t` occurs twice", begin(&path("2"), &[], &[one.clone(), one.clone()]).map(drop));
    for (name, shape) in [("3", vec![4, 33]), ("4", vec![usize::MAX, 64]), ("5", vec![])] {
        let wrong = tensor("t", GgufType::Q8_0, &shape);
        refused("does not fit", begin(&path(name), &[], &[wrong]).map(drop));
    }
    let mut writer = begin(&path("6"), &[], &[one]).unwrap();
    refused("9 bytes of a tensor that has 8", writer.write(&[0; 9]));
    writer.write(&[0; 7]).unwrap();
    refused("7 bytes of a tensor that has 8", writer.finish());
}
