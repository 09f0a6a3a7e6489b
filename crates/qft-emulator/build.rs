//! Compiles every kernel source for the host, and writes the table of their entries.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let kernels = manifest.join("../../kernels").canonicalize()?;
    let emulate = manifest.join("emulate");
    for watched in [&kernels, &kernels.join("include"), &emulate] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }

    let compiler = || {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            // As nvcc with --fmad=false: no product and sum become one operation unless the source says so.
            .flag("-ffp-contract=off")
            .flag_if_supported("-ftls-model=initial-exec")
            .flag_if_supported("-Wno-unknown-pragmas")
            .flag_if_supported("-Wno-psabi")
            .define("QFT_EMULATE", None)
            .include(kernels.join("include"))
            .include(&emulate);
        build
    };
    // What traps on a GPU, or reads what is not there, traps here as well. Accesses are reported to the race check
    // (emulate/races.cpp), and loops of them do not become calls of memcpy, which are not.
    let mut build = compiler();
    build
        .opt_level(2)
        .flag("-fsanitize=thread")
        .flag_if_supported("-fno-tree-loop-distribute-patterns")
        .flag_if_supported("-fsanitize=alignment,bounds,integer-divide-by-zero")
        .flag_if_supported("-fsanitize-undefined-trap-on-error");

    let mut registry = String::from("unsafe extern \"C\" {\n");
    let mut tables = String::new();
    for (table, files) in
        [("ENTRIES", sources(&kernels)?), ("FAULTY", vec![emulate.join("faulty.cu")])]
    {
        let _ = writeln!(tables, "static {table}: &[Entry] = &[");
        for source in files {
            let text = fs::read_to_string(&source)?;
            println!("cargo::rerun-if-changed={}", source.display());
            let module =
                source.file_stem().and_then(|s| s.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
            let mut unit = format!(
                "#include \"emulate.h\"\n#include \"entry.h\"\n#include \"{}\"\n",
                source.display()
            );
            for (name, bounds) in entries(&text) {
                let _ = writeln!(unit, "QFT_EMULATE_ENTRY({name}, {bounds})");
                let _ = writeln!(
                    registry,
                    "    fn qft_emulate_call_{name}(arguments: *const *mut std::ffi::c_void);\n    \
                     fn qft_emulate_parameters_{name}() -> *const std::ffi::c_char;\n    \
                     fn qft_emulate_threads_{name}() -> u32;"
                );
                let _ = writeln!(
                    tables,
                    "    Entry {{ module: \"{module}\", name: \"{name}\", call: qft_emulate_call_{name}, \
                     parameters: qft_emulate_parameters_{name}, threads: qft_emulate_threads_{name} }},"
                );
            }
            let file = out.join(format!("{module}.cpp"));
            fs::write(&file, unit)?;
            build.file(file);
        }
        tables.push_str("];\n");
    }
    registry.push_str("}\n");
    build.compile("qft_kernels_on_host");
    // Behind the kernels: a linker looks for what a library lacks in those after it.
    compiler()
        .opt_level(3)
        .files(
            [
                "schedule.cpp",
                "memory.cpp",
                "multiply.cpp",
                "matrices.cpp",
                "warpgroup.cpp",
                "atomics.cpp",
                "races.cpp",
                "shadow.cpp",
            ]
            .map(|name| emulate.join(name)),
        )
        .compile("qft_emulate");
    fs::write(out.join("registry.rs"), registry + &tables)
}

/// The kernel sources, in order of their names.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "cu"));
    files.sort();
    Ok(files)
}

/// Name and launch bounds of each `extern "C" __global__` function.
fn entries(text: &str) -> Vec<(String, String)> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n");
    let bounds_keyword = "__launch_bounds__(";
    code.split("extern \"C\" __global__")
        .skip(1)
        .filter_map(|rest| {
            let (bounds, rest) = match rest.find(bounds_keyword) {
                Some(at) if at < rest.find('{').unwrap_or(rest.len()) => {
                    let inner = &rest[at + bounds_keyword.len()..];
                    let end = matching_parenthesis(inner)?;
                    (inner[..end].to_owned(), &inner[end + 1..])
                }
                _ => ("1024".to_owned(), rest.split_once("void")?.1),
            };
            let name = rest.split('(').next()?.split_whitespace().last()?;
            Some((name.to_owned(), bounds))
        })
        .collect()
}

/// Where the parenthesis that is open before `text` closes.
fn matching_parenthesis(text: &str) -> Option<usize> {
    let mut depth = 1;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        (depth == 0).then_some(at)
    })
}
