//! Opens a GPU, and prints as JSON what its driver makes of the kernels: seconds and notes of each module, registers and local
//! memory of each kernel, and whether products of warpgroups are used. `gpu_open [INDEX]`
#![allow(clippy::unwrap_used, reason = "an example ends with its first error")]

use qft_cuda::{Driver, Gpu};
use qft_tensor::{CpuConfig, Host};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let index = std::env::args().nth(1).map_or(0, |index| index.parse().unwrap());
    let began = Instant::now();
    let gpu = Gpu::open(index).unwrap();
    let opened = began.elapsed().as_secs_f64();
    let modules = gpu.modules().iter().map(
        |module| json!({"name": module.name, "seconds": module.seconds, "notes": module.notes}),
    );
    let kernels = gpu.kernels().unwrap();
    let kernels = kernels.iter().map(|kernel| {
        json!({
            "name": kernel.name, "registers": kernel.registers, "local_bytes": kernel.local_bytes,
            "shared_bytes": kernel.shared_bytes, "max_threads": kernel.max_threads,
        })
    });
    let properties = gpu.properties();
    let mut found = json!({
        "name": properties.name, "compute_capability": properties.compute_capability,
        "multiprocessors": properties.multiprocessors, "open_seconds": opened,
        "modules": modules.collect::<Vec<_>>(), "kernels": kernels.collect::<Vec<_>>(),
    });
    drop(gpu);
    let host = Arc::new(Host::new(CpuConfig::detect().unwrap()).unwrap());
    let began = Instant::now();
    let device = qft_cuda::open(index, host).unwrap();
    found["tested_seconds"] = json!(began.elapsed().as_secs_f64());
    found["warpgroup_products"] = json!(device.has_warpgroup_products());
    println!("{found}");
}
