//! States that the host cannot address: a model is loaded, written and saved on a device whose memory is reached by copies
//! alone, with the CPU's bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use qft_autograd::{Matrix, Weight};
use qft_cuda::Cuda;
use qft_emulator::Emulator;
use qft_llama::export::SavedWeights;
use qft_llama::model::{Model, WeightFormat};
use qft_llama::params::Param;
use qft_llama::{DEFAULT_SHARD_BYTES, LlamaConfig, WeightSource, export_folder};
use qft_quant::{HybridOps, ProtectedWeights};
use qft_tensor::{Buffer, Device, Element};
use qft_testing::material;
use qft_train::TrainOps;
use qft_train::options::States;
use qft_train::step::checkpoint::{self, Progress};
use qft_train::step::trainer::Trainer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ALL_STATES: [States; 6] =
    [States::Full, States::Balanced, States::Compact, States::Tiny, States::Paper, States::F32];

/// Memory of the emulated device.
const BYTES: u64 = 1 << 30;

fn emulator() -> Cuda {
    Cuda::new(Arc::new(Emulator::new(BYTES, 1)), common::host()).unwrap()
}

fn format(states: States) -> WeightFormat {
    common::state_options(states).format()
}

/// The small model of the repository, and what the quantizer reported.
fn load(on: &dyn HybridOps, format: WeightFormat) -> (Model, Vec<String>) {
    let dir = material::stories260k();
    let config = LlamaConfig::from_dir(&dir).unwrap();
    let weights = WeightSource::open(&dir, &config).unwrap();
    let mut reports = Vec::new();
    let model = Model::load(on, &config, &weights, format, &mut |name, report| {
        reports.push(format!("{name}: {report:?}"));
    })
    .unwrap();
    (model, reports)
}

fn bytes<T: Element>(on: &dyn HybridOps, buffer: &Buffer<T>) -> Vec<u8> {
    bytemuck::cast_slice(&buffer.to_vec(on).unwrap()).to_vec()
}

/// Every plane of every parameter.
fn planes(on: &dyn HybridOps, model: &Model) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for param in model.params.as_ref().list() {
        match param {
            Param::Vector(vector) => all.push(bytes(on, &vector.data)),
            Param::Matrix(Matrix { weight: Weight::Float(data), .. }) => all.push(bytes(on, data)),
            Param::Matrix(Matrix { weight: Weight::Hybrid(weight), .. }) => {
                all.extend([bytes(on, &weight.q), bytes(on, &weight.scale)]);
                all.extend(weight.residual.as_ref().map(|plane| bytes(on, plane)));
                if let Some(ProtectedWeights { values, cols, counts, row_start }) =
                    &weight.protected
                {
                    all.extend([bytes(on, values), bytes(on, cols)]);
                    all.extend([bytes(on, counts), bytes(on, row_start)]);
                }
            }
        }
    }
    all
}

/// The weight file that the model is exported to.
fn exported(on: &dyn HybridOps, model: &Model, out: &Path) -> Vec<u8> {
    let params = model.params.as_ref().list();
    let config = &model.config;
    export_folder(
        out,
        None,
        config,
        SavedWeights::default(),
        DEFAULT_SHARD_BYTES,
        on.ledger(),
        &mut |spec, rows, out| {
            let param = params.iter().find(|param| param.name() == spec.name).unwrap();
            param.read_rows(on, rows, out)
        },
    )
    .unwrap();
    std::fs::read(out.join("model.safetensors")).unwrap()
}

#[test]
fn a_model_is_loaded_and_exported_with_the_bytes_of_the_cpu() {
    let (cpu, device) = (common::cpu(), emulator());
    for states in ALL_STATES {
        let ((want, want_reports), (got, got_reports)) =
            (load(&cpu, format(states)), load(&device, format(states)));
        assert_eq!(got_reports, want_reports, "{states:?}");
        assert!(planes(&device, &got) == planes(&cpu, &want), "planes differ: {states:?}");
        let folder = tempfile::tempdir().unwrap();
        let file = |on: &dyn HybridOps, model, name| exported(on, model, &folder.path().join(name));
        assert!(
            file(&device, &got, "device") == file(&cpu, &want, "cpu"),
            "exported weights differ: {states:?}"
        );
        let (device, cpu) = (device.ledger().report(), cpu.ledger().report());
        assert_eq!(device.current_bytes, cpu.current_bytes, "{states:?}");
        assert_eq!(device.peak_bytes, cpu.peak_bytes, "a copy beside the model: {states:?}");
    }
}

/// The state file of a checkpoint of `trainer`, written below `root`, and its folder.
fn saved(on: &dyn TrainOps, trainer: &mut Trainer, root: &Path) -> (Vec<u8>, PathBuf, Progress) {
    let progress = Progress::of(trainer);
    let dir = checkpoint::save(on, trainer, &progress, root).unwrap();
    (std::fs::read(dir.join("state.safetensors")).unwrap(), dir, progress)
}

/// After a step, so that momentum is not zero and weights are not those of the file.
#[test]
fn a_checkpoint_goes_from_device_to_device() {
    let (cpu, device) = (common::cpu(), emulator());
    let windows = common::Windows::shakespeare(8);
    for states in [States::Full, States::Compact, States::F32] {
        let setup = common::setup(states);
        let mut trained = common::trainer(&device, &setup);
        trained.step(&device, &[windows.batch(0, 1)], 1e-3).unwrap();
        let root = tempfile::tempdir().unwrap();
        let (want, dir, progress) = saved(&device, &mut trained, &root.path().join("first"));
        for (name, on) in [("cpu", &cpu as &dyn TrainOps), ("device", &device)] {
            let mut other = common::trainer(on, &setup);
            checkpoint::load(on, &mut other, &progress, &dir).unwrap();
            let (got, ..) = saved(on, &mut other, &root.path().join(name));
            assert!(got == want, "{states:?} on {name}");
        }
    }
}
