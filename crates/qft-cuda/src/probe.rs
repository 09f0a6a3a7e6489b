//! Whether there is a GPU to use, asked so that a machine without one gets an answer instead of a panic.

#![allow(unsafe_code)] // Calls of NVIDIA's driver.

use crate::Error;
use crate::error::failed;
use cudarc::driver::{result, sys};

/// The oldest driver that loads the kernels' PTX 7.8: that of CUDA 12.0, for which the driver's functions are declared.
const OLDEST_DRIVER: i32 = 12_000;

/// The number of GPUs.
///
/// Errors: [`Error::NoDriver`], [`Error::OldDriver`], [`Error::Driver`] if the driver finds no GPU or fails.
pub fn device_count() -> Result<usize, Error> {
    // SAFETY: looks for a library by name; loading NVIDIA's driver has no precondition.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::NoDriver);
    }
    let mut version = 0;
    // SAFETY: writes one integer; allowed before cuInit.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(failed("cuDriverGetVersion"))?;
    if version < OLDEST_DRIVER {
        return Err(Error::OldDriver {
            found: version_text(version),
            needed: version_text(OLDEST_DRIVER),
        });
    }
    result::init().map_err(failed("cuInit"))?;
    let count = result::device::get_count().map_err(failed("cuDeviceGetCount"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// 12080 as 12.8.
fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
