//! Constants that kernels and the CPU backend must share: each is written once in Rust and once in CUDA.

use qft_optim::adamw::MAX_DIRECTION;
use qft_optim::moment::BLOCK;
use qft_optim::moment::dither::{COLUMN, ROW};
use qft_optim::weight::{GROWN_MAX, MAX_STEP};
use qft_quant::fixed_point::MAX_Q;
use qft_tensor::numeric::{LANES, MAGIC, TINY};
use qft_tensor::purpose::RESCALING;
use qft_tensor::rng::BLOCK_WORDS;
use qft_tensor::rotation::GROUPS;
use std::path::Path;

/// What `constexpr` gives `name` in `source`, which is a number.
fn value(source: &str, name: &str) -> Option<f64> {
    let rest = source.split(&format!(" {name} = ")).nth(1)?;
    let text = rest.split([';', ',']).next()?.trim();
    if let Some(hex) = text.strip_prefix("0x") {
        return u32::from_str_radix(hex.trim_end_matches('u'), 16).ok().map(f64::from);
    }
    match text.strip_suffix('f') {
        Some(float) => float.parse::<f32>().ok().map(f64::from),
        None => text.trim_end_matches('u').parse().ok(),
    }
}

#[test]
fn kernels_have_the_constants_of_the_cpu() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernels");
    let shared: &[(&str, &[(&str, f64)])] = &[
        (
            "include/numeric.cuh",
            &[("MAGIC", MAGIC.into()), ("TINY", TINY.into()), ("LANES", LANES as f64)],
        ),
        ("include/random.cuh", &[("BLOCK_WORDS", BLOCK_WORDS as f64)]),
        (
            "include/moments.cuh",
            &[
                ("BLOCK", BLOCK as f64),
                ("DITHER_COLUMN", COLUMN.into()),
                ("DITHER_ROW", ROW.into()),
            ],
        ),
        (
            "update.cu",
            &[
                ("MAX_Q", MAX_Q.into()),
                ("GROWN_MAX", GROWN_MAX.into()),
                ("MAX_STEP", MAX_STEP.into()),
                ("MAX_DIRECTION", MAX_DIRECTION.into()),
                ("RESCALING", RESCALING.into()),
            ],
        ),
    ];
    let mut problems = Vec::new();
    for (file, constants) in shared {
        let source = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        for &(name, want) in *constants {
            let got = value(&source, name);
            if got != Some(want) {
                problems.push(format!("kernels/{file}: {name} is {got:?}, in Rust it is {want}"));
            }
        }
    }
    let rotation = std::fs::read_to_string(folder.join("include/rotation.cuh")).unwrap();
    let [large, small @ ..] = GROUPS;
    assert!(rotation.contains(&format!("SIZE = {large}")), "groups of {large}");
    for size in small {
        assert!(rotation.contains(&format!("walk_small_groups<{size}>")), "groups of {size}");
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
