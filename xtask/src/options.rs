//! `cargo xtask options`: docs/OPTIONS.md, from the definitions that the command line is made of.

use crate::repository::repository;
use anyhow::{Context, Result};
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;
use std::path::Path;

/// The generated page.
const PAGE: &str = "docs/OPTIONS.md";

/// What stands above the options.
const HEAD: &str = "\
# Options

<!-- Made by `cargo xtask options` from the definitions of the command line. Not to be edited. -->

Every option of `qft`, by command. Those of `finetune` are also the keys of its settings file (`--config`), without the
dashes in front: `--lr 1e-5` is `lr = 1e-5`. An option on the command line wins over the file. `qft completions SHELL` lets a shell
complete them, and `qft man` makes manual pages.

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: the model, the data, the memory, a device or a file; the last line on standard error says what, and what to do |
| 2 | the command line or an option is wrong; nothing was begun |
| 128 + N | stopped by signal N, so 130 is Ctrl-C; a run saves a checkpoint first |

Results go to standard output, everything else to standard error. `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` are obeyed. `QFT_LOG`
chooses messages as `tracing` filters do (`QFT_LOG=qft_llama=debug`), where neither `-v` nor `-q` is given.
";

/// Writes the page.
pub(crate) fn run() -> Result<()> {
    let path = repository().join(PAGE);
    std::fs::write(&path, page()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {PAGE}");
    Ok(())
}

/// A line if the page is not what [`run`] would write.
pub(crate) fn stale(root: &Path) -> Option<String> {
    let current = std::fs::read_to_string(root.join(PAGE)).is_ok_and(|text| text == page());
    (!current).then(|| format!("{PAGE}: is not what `cargo xtask options` writes; run it"))
}

fn page() -> String {
    let mut text = HEAD.to_owned();
    let program = qft_train::commands::Args::command();
    let _ = writeln!(text, "\n## Every command");
    tables(&mut text, &program);
    sections(&mut text, "qft", &program);
    text
}

/// The commands below a command, and those below them.
fn sections(text: &mut String, path: &str, command: &Command) {
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            sections(text, &path, command);
        } else {
            section(text, &path, command);
        }
    }
}

fn section(text: &mut String, path: &str, command: &Command) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "\n## {path}\n\n{about}.");
    tables(text, command);
}

/// The options of a command, by heading.
fn tables(text: &mut String, command: &Command) {
    let options: Vec<_> = command
        .get_arguments()
        .filter(|option| option.get_long().is_some_and(|name| !matches!(name, "help" | "version")))
        .collect();
    let mut headings = Vec::new();
    for option in &options {
        if !headings.contains(&option.get_help_heading()) {
            headings.push(option.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            let _ = writeln!(text, "\n**{heading}**");
        }
        text.push_str("\n| option | what it does | default |\n|---|---|---|\n");
        for option in options.iter().filter(|option| option.get_help_heading() == heading) {
            let _ = writeln!(text, "{}", line(option));
        }
    }
}

fn line(option: &Arg) -> String {
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    let (help, default) = split_default(&help);
    let default = match option.get_default_values() {
        _ if !option.get_action().takes_values() => default,
        [] => default,
        values => values[0].to_string_lossy().into_owned(),
    };
    let default = if option.is_required_set() { "required".to_owned() } else { default };
    let short = option.get_short().map_or_else(String::new, |short| format!("`-{short}`, "));
    format!(
        "| {short}`--{}{}` | {}{} | {} |",
        name(option),
        value(option),
        cell(&help),
        values(option),
        cell(&default)
    )
}

fn name(option: &Arg) -> &str {
    option.get_long().unwrap_or_default()
}

/// What follows the name.
fn value(option: &Arg) -> String {
    if !option.get_action().takes_values() {
        return String::new();
    }
    let name = match option.get_value_names() {
        Some([name, ..]) => name.to_string(),
        _ => "VALUE".to_owned(),
    };
    let optional = option.get_num_args().is_some_and(|range| range.min_values() == 0);
    let separator = if option.is_require_equals_set() { "=" } else { " " };
    let shown = format!("{separator}{}", name.replace('|', "\\|"));
    if optional { format!("[{shown}]") } else { shown }
}

/// The names that may be given, with what each means.
fn values(option: &Arg) -> String {
    let known = option.get_possible_values();
    let shown = known.iter().filter(|value| !value.is_hide_set());
    let of = |value: &clap::builder::PossibleValue| match value.get_help() {
        Some(help) => format!("<br>`{}`: {}", value.get_name(), cell(&help.to_string())),
        None => format!("<br>`{}`", value.get_name()),
    };
    let switch = known.iter().all(|value| matches!(value.get_name(), "true" | "false"));
    if switch { String::new() } else { shown.map(of).collect() }
}

/// Parts `[default: …]` off the help of an option.
fn split_default(help: &str) -> (String, String) {
    let Some((before, rest)) = help.split_once("[default: ") else {
        return (help.to_owned(), String::new());
    };
    let (default, after) = rest.split_once(']').unwrap_or((rest, ""));
    (format!("{}{after}", before.trim_end()), default.to_owned())
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_current() {
        assert_eq!(stale(&repository()), None);
    }

    #[test]
    fn options_have_their_defaults_and_values() {
        let page = page();
        for text in [
            "## Every command",
            "| `-q`, `--quiet` |",
            "## qft finetune",
            "## qft plan",
            "| `--lr RATE` | Largest learning rate | 1e-5 for lion, 2e-5 for adamw |",
            "<br>`compact`: ",
            "| `--pack[=BOOL]` |",
            "| `--json` |",
        ] {
            assert!(page.contains(text), "{text}\n{page}");
        }
        assert!(!page.contains("--help"), "{page}");
    }

    #[test]
    fn a_default_is_parted_from_the_help() {
        let parted = |help| split_default(help);
        assert_eq!(parted("Rate [default: 1]"), ("Rate".into(), "1".into()));
        assert_eq!(parted("Rate"), ("Rate".into(), String::new()));
    }
}
