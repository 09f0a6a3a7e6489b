//! Where figures are from: commits, machines and commands, without what is about one machine only.

use super::lines::Lines;
use crate::about::About;
use std::fmt::Write;

/// Names what the lines of a job were measured with.
pub(super) fn write(text: &mut String, lines: &Lines<'_>) {
    let runs: Vec<_> = lines.all().iter().flat_map(|line| &line.runs).collect();
    let abouts = || runs.iter().map(|run| &run.about);
    let commits = unique(abouts().map(commit));
    let machines = unique(abouts().map(machine));
    let commands = unique(abouts().map(|about| command(&about.command)));
    let loads = || abouts().filter_map(|about| about.load);
    let load = match (loads().reduce(f64::min), loads().reduce(f64::max)) {
        (Some(least), Some(most)) => format!(" Load before a run: {least:.1} to {most:.1}."),
        _ => String::new(),
    };
    let (commits, machines) = (commits.join("; "), machines.join("; "));
    let _ = writeln!(text, "\nCommit: {commits}. Machine: {machines}.{load}");
    if unique(runs.iter().map(|run| run.sources.clone())).len() > 1 {
        text.push_str("**These runs are of different versions of the trainer.**\n");
    }
    let _ = writeln!(text, "\n```sh\n{}\n```", commands.join("\n"));
}

fn unique(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

fn commit(about: &About) -> String {
    let commit = about.commit.as_deref().map_or("unknown", |hash| hash.get(..10).unwrap_or(hash));
    match about.clean {
        Some(true) | None => commit.to_owned(),
        Some(false) => format!("{commit} with changes"),
    }
}

fn machine(about: &About) -> String {
    let cores = about.cores.map_or_else(String::new, |cores| format!("{cores} cores, "));
    let memory = about
        .memory_bytes
        .map_or_else(String::new, |bytes| format!(", {:.0} GB", bytes as f64 * 1e-9));
    let processor = about.processor.as_deref().unwrap_or("an unknown processor");
    let rustc = about.rustc.as_deref().unwrap_or_default();
    // The compiler's date and hash say nothing more.
    let rustc = rustc.split(" (").next().unwrap_or_default();
    format!("{cores}{processor}{memory}, {rustc}")
}

/// A command with the last parts of absolute paths: the rest is about one machine.
fn command(command: &str) -> String {
    let short = |word: &str| match word.starts_with('/') {
        true => word.rsplit('/').find(|part| !part.is_empty()).unwrap_or("/").to_owned(),
        false => word.to_owned(),
    };
    command.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_without_the_machine() {
        let told = command("cargo xtask parity --model /some/where/llama/ --data a/b.jsonl");
        assert_eq!(told, "cargo xtask parity --model llama --data a/b.jsonl");
    }
}
