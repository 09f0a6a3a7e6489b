//! The functions that the fuzz targets call, one for each kind of file, and the macro that makes a binary of one.

pub mod targets;

/// The allocator of every target: an input that asks for more than its share ends the process.
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// Runs one target on one input, within the memory that an input of this length may take.
pub fn run(target: &targets::Target, input: &[u8]) {
    let limit = ALLOCATOR.allocated() + target.memory(input.len());
    // The old limit cannot be above what is taken; so this only fails where a thread has taken more just now.
    let _ = ALLOCATOR.set_limit(limit);
    (target.run)(input);
    let _ = ALLOCATOR.set_limit(usize::MAX);
}

/// A binary for the target of this name.
#[macro_export]
macro_rules! fuzz {
    ($target:ident) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::run(&$crate::targets::$target, input));
    };
}
