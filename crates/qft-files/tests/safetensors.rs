//! Files written and read again, by this crate and by the format's own, and files that lie.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use qft_files::safetensors::read_index;
use qft_files::{Advice, Disk, Dtype, Error, TensorFile, TensorInfo, TensorWriter};
use safetensors::SafeTensors;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const ADVICE: Advice = Advice { missing: "look elsewhere", damaged: "take another" };

fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.safetensors");
    (dir, path)
}

fn infos() -> Vec<TensorInfo> {
    let info = |name: &str, dtype, shape: &[usize]| TensorInfo {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
    };
    vec![
        info("matrix", Dtype::BF16, &[3, 5]),
        info("empty \"quoted\"", Dtype::F32, &[0, 7]),
        info("codes", Dtype::I8, &[100_000]),
        info("scalar", Dtype::F32, &[]),
    ]
}

fn data() -> Vec<u8> {
    (0..30 + 100_000 + 4).map(|i| (i * 31 % 251) as u8).collect()
}

fn write(path: &Path) {
    let file = Disk::default().create(path).unwrap();
    let mut writer = TensorWriter::begin(file, &[("format", "pt")], &infos()).unwrap();
    for part in data().chunks(7777) {
        writer.write(part).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn what_is_written_is_read() {
    let (_dir, path) = place();
    write(&path);
    let bytes = fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert!(header.is_multiple_of(8));
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let other = SafeTensors::deserialize(&bytes).unwrap();

    let file = TensorFile::open(&path, ADVICE).unwrap();
    assert_eq!(file.path(), path);
    assert_eq!(file.tensors().len(), 4);
    for info in infos() {
        let tensor = file.tensors().iter().find(|tensor| tensor.name == info.name).unwrap();
        assert_eq!((&tensor.shape, tensor.dtype), (&info.shape, info.dtype));
        let view = other.tensor(&info.name).unwrap();
        assert_eq!(view.data().len() as u64, tensor.bytes);
        for (start, len) in [(0, view.data().len()), (1, view.data().len() / 2), (0, 0)] {
            let mut out = vec![0; len];
            let read = file.read_at(tensor, start as u64, &mut out);
            if start + len <= view.data().len() {
                read.unwrap();
                assert_eq!(out, view.data()[start..][..len]);
            } else {
                read.unwrap_err();
            }
        }
        for (start, len) in [(0, tensor.bytes + 1), (tensor.bytes, 1), (u64::MAX, 1), (u64::MAX, 2)]
        {
            let mut out = vec![0; len as usize];
            let error = file.read_at(tensor, start, &mut out).unwrap_err();
            assert!(matches!(error, Error::OutOfTensor { .. }), "{error}");
        }
    }
}

#[test]
fn neither_less_nor_more_is_written_than_announced() {
    let write = |lens: &[usize]| {
        let (_dir, path) = place();
        let mut writer =
            TensorWriter::begin(Disk::default().create(&path).unwrap(), &[], &infos()).unwrap();
        for &len in lens {
            writer.write(&vec![1; len])?;
        }
        writer.finish()
    };
    write(&[100_034]).unwrap();
    write(&[100_000, 0, 34]).unwrap();
    for (lens, got) in [(&[][..], 0), (&[100_033], 100_033), (&[100_000, 35], 100_035)] {
        let error = write(lens).unwrap_err();
        assert!(
            matches!(error, Error::WrongLength { expected: 100_034, got: g, .. } if g == got),
            "{error}"
        );
    }
    let refused = |infos: &[TensorInfo], part: &str| {
        let (_dir, path) = place();
        let file = Disk::default().create(&path).unwrap();
        let error = TensorWriter::begin(file, &[], infos).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    let huge = TensorInfo { name: "huge".into(), dtype: Dtype::F32, shape: vec![usize::MAX, 2] };
    refused(std::slice::from_ref(&huge), "`huge`");
    let nine: Vec<_> = (0..9)
        .map(|i| TensorInfo { name: format!("t{i}"), shape: vec![(1 << 59) - 1], ..huge.clone() })
        .collect();
    refused(&nine, "`t8`");
    let small = TensorInfo { shape: vec![1], ..huge };
    refused(&[small.clone(), small], "`huge`");
}

#[test]
fn a_failure_names_the_file() {
    let (_dir, path) = place();
    let full = Disk::watched(|step| match step {
        qft_files::Step::Write(_) => Err(std::io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    let mut writer = TensorWriter::begin(full.create(&path).unwrap(), &[], &infos()).unwrap();
    let error = writer.write(&data()).unwrap_err();
    let Error::Io { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("t.safetensors"), "{error}");
    let error = TensorFile::open(&path.with_file_name("absent"), ADVICE).unwrap_err();
    assert!(error.to_string().ends_with("absent; look elsewhere"), "{error}");
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn headers_that_lie() {
    let one = |info: &str| with_header(&format!("{{\"t\":{info}}}"), &[0; 8]);
    let info = |offsets: &str| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}"#);
    let two =
        |a: &str, b: &str| with_header(&format!(r#"{{"a":{},"b":{}}}"#, info(a), info(b)), &[0; 8]);
    let ones = vec!["1"; 1_000_000].join(",");
    let cases: [(&str, Vec<u8>, &str); 14] = [
        (
            "claims too much",
            [&(1u64 << 62).to_le_bytes()[..], b"{}"].concat(),
            "length of the header",
        ),
        ("claims one too much", [&3u64.to_le_bytes()[..], b"{}"].concat(), "at most 2 bytes"),
        ("overlap", two("[0,4]", "[0,4]"), "data_offsets of `b`, expected a region from 4"),
        ("part overlap", two("[0,4]", "[2,6]"), "data_offsets of `b`, expected a region from 4"),
        ("gap", two("[0,4]", "[6,10]"), "got 6..10"),
        ("gap at the beginning", one(&info("[4,8]")), "expected a region from 0, got 4..8"),
        ("end before start", one(&info("[0,-4]")), "header"),
        ("size", one(&info("[0,8]")), "size of `t`, expected 4 bytes for [1] of F32, got 8 bytes"),
        ("truncated", one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,12]}"#), "truncated"),
        ("rest", one(&info("[0,4]")), "where the last tensor ends"),
        (
            "half a byte",
            one(r#"{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#),
            "whole bytes, not [3]",
        ),
        (
            "overflow",
            one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}"#),
            "64 bits",
        ),
        // As many numbers as the header has room for would take eight bytes for each two.
        (
            "dimensions",
            one(&format!(r#"{{"dtype":"F32","shape":[{ones}],"data_offsets":[0,8]}}"#)),
            "header",
        ),
        ("no tensor", one("7"), "header"),
    ];
    let (_dir, path) = place();
    for (what, bytes, part) in cases {
        fs::write(&path, bytes).unwrap();
        let text = TensorFile::open(&path, ADVICE).unwrap_err().to_string();
        assert!(
            text.contains("t.safetensors") && text.ends_with("; take another"),
            "{what}: {text}"
        );
        assert!(text.contains(part), "{what}: `{part}` is not in: {text}");
    }
    fs::write(&path, with_header(&format!(r#"{{"a":{0},"a":{0}}}"#, info("[0,4]")), &[0; 4]))
        .unwrap();
    let Error::Json { source, .. } = TensorFile::open(&path, ADVICE).unwrap_err() else { panic!() };
    assert!(source.to_string().contains("`a` occurs twice"), "{source}");
}

/// Cut or changed anywhere, a file gives an error or a header that is right for it, never a panic.
#[test]
fn damaged_anywhere() {
    let (_dir, path) = place();
    write(&path);
    let whole = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize + 8;
    for cut in (0..header).chain([whole.len() / 2, whole.len() - 1]) {
        fs::write(&path, &whole[..cut]).unwrap();
        TensorFile::open(&path, ADVICE).unwrap_err();
    }
    for at in 0..header {
        for bit in [0, 3, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&path, &bytes).unwrap();
            if let Ok(file) = TensorFile::open(&path, ADVICE) {
                let end = file.tensors().iter().map(|t| t.start + t.bytes).max();
                assert_eq!(end, Some(bytes.len() as u64), "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn an_index_leads_nowhere_else() {
    let (dir, _) = place();
    let path = dir.path().join("model.safetensors.index.json");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        read_index(&path, "take another")
    };
    assert_eq!(read(r#"{"weight_map":{"a":"x","b":"x"}}"#).unwrap().len(), 2);
    for file in ["../x", "/etc/passwd", "..", "", "x/"] {
        let text = read(&format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#)).unwrap_err().to_string();
        assert!(text.contains("weight_map of `a`") && text.contains("take another"), "{text}");
    }
    assert!(matches!(read(r#"{"weight_map":{}}"#), Err(Error::Header { .. })));
    assert!(matches!(read("{}"), Err(Error::Json { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(read_index(&path, ""), Err(Error::Io { .. })));
}
