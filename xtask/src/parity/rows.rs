//! The rows of the tables: what each has beyond the options that all share.
//!
//! A row is a name and options of `qft finetune`; a table lists rows by their names. To add one, add it to both.

use anyhow::{Context, Result, bail};
use clap::Parser;
use qft_train::options::FinetuneArgs;
use serde_json::{Map, Value};

/// A way to train.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// Its name, for `--only` and in the tables.
    pub(super) name: &'static str,
    /// Its options, as `qft finetune` has them.
    pub(super) flags: &'static str,
}

/// Rows that are compared with each other.
pub(super) struct Table {
    /// What it is about.
    pub(super) title: &'static str,
    /// Names of its rows.
    pub(super) rows: &'static [&'static str],
}

/// The references that gaps are measured to.
pub(super) const LION: &str = "f32-lion";
pub(super) const ADAMW: &str = "f32-adamw";

/// Before training, in float: not trained, so not among [`ROWS`].
pub(super) const UNTRAINED: &str = "untrained";

/// All ways to train. In tables they stand in this order.
pub(super) const ROWS: [Row; 34] = [
    Row { name: ADAMW, flags: "--states f32 --optimizer adamw" },
    Row { name: LION, flags: "--states f32" },
    Row { name: "full", flags: "--states full" },
    Row { name: "full-float", flags: "--states full --compute float" },
    Row { name: "balanced", flags: "--states balanced" },
    Row { name: "balanced-float", flags: "--states balanced --compute float" },
    Row { name: "compact", flags: "--states compact" },
    Row { name: "compact-float", flags: "--states compact --compute float" },
    Row { name: "tiny", flags: "--states tiny" },
    Row { name: "full-adamw", flags: "--states full --optimizer adamw" },
    Row { name: "balanced-adamw", flags: "--states balanced --optimizer adamw" },
    Row { name: "compact-adamw", flags: "--states compact --optimizer adamw" },
    Row { name: "paper", flags: "--states paper" },
    Row { name: "paper-float", flags: "--states paper --compute float" },
    Row { name: "paper-nearest", flags: "--states paper --rounding nearest" },
    Row { name: "paper-nearest-float", flags: "--states paper --rounding nearest --compute float" },
    Row { name: "full-forward", flags: "--states full --compute forward" },
    Row { name: "full-input-gradient", flags: "--states full --compute input-gradient" },
    Row { name: "full-weight-gradient", flags: "--states full --compute weight-gradient" },
    Row {
        name: "full-float-forward",
        flags: "--states full --compute input-gradient+weight-gradient",
    },
    Row {
        name: "full-float-input-gradient",
        flags: "--states full --compute forward+weight-gradient",
    },
    Row {
        name: "full-float-weight-gradient",
        flags: "--states full --compute forward+input-gradient",
    },
    Row { name: "full-protected-0.1", flags: "--states full --protected 0.001" },
    Row { name: "full-protected-1", flags: "--states full --protected 0.01" },
    Row { name: "compact-protected-0", flags: "--states compact --protected 0" },
    Row { name: "compact-protected-0.1", flags: "--states compact --protected 0.001" },
    Row { name: "full-unrotated", flags: "--states full --rotation=false" },
    Row { name: "compact-unrotated", flags: "--states compact --rotation=false" },
    Row { name: "full-unrotated-float", flags: "--states full --rotation=false --compute float" },
    Row { name: "full-linear", flags: "--states full --momentum-code linear" },
    Row { name: "full-sqrt4", flags: "--states full --momentum-code sqrt4" },
    Row { name: "balanced-sqrt4", flags: "--states balanced --momentum-code sqrt4" },
    Row { name: "full-nearest", flags: "--states full --rounding nearest" },
    Row { name: "compact-nearest", flags: "--states compact --rounding nearest" },
];

/// The table that the page begins with.
pub(super) const MAIN: Table = Table {
    title: "Parity",
    rows: &[
        ADAMW,
        LION,
        "full",
        "full-float",
        "balanced",
        "balanced-float",
        "compact",
        "compact-float",
        "tiny",
        "paper",
        "paper-float",
        "paper-nearest",
        "paper-nearest-float",
    ],
};

/// One thing at a time, on and off.
pub(super) const ABLATIONS: [Table; 8] = [
    Table {
        title: "Protected weights: none, 0.1 % and 1 %",
        rows: &[
            "full",
            "full-protected-0.1",
            "full-protected-1",
            "compact-protected-0",
            "compact-protected-0.1",
            "compact",
        ],
    },
    Table {
        title: "Residual: 8 bits, 4 bits and none",
        rows: &["full", "balanced", "compact-protected-0"],
    },
    Table {
        title: "Rotation of weights and inputs: on and off",
        rows: &[
            "full",
            "full-unrotated",
            "full-float",
            "full-unrotated-float",
            "compact",
            "compact-unrotated",
        ],
    },
    Table {
        title: "Code of the momentum: square root, linear, and square root in 4 bits",
        rows: &[
            "full",
            "full-linear",
            "full-sqrt4",
            "balanced",
            "balanced-sqrt4",
            "compact",
            "tiny",
        ],
    },
    Table {
        title: "Rule: Lion and AdamW",
        rows: &[
            LION,
            "full",
            "balanced",
            "compact",
            ADAMW,
            "full-adamw",
            "balanced-adamw",
            "compact-adamw",
        ],
    },
    Table {
        title: "Rounding of updated weights: stochastic and to nearest",
        rows: &["full", "full-nearest", "compact", "compact-nearest", "paper", "paper-nearest"],
    },
    Table {
        title: "Integer products: each alone in INT8, and each alone in float",
        rows: &[
            "full",
            "full-forward",
            "full-input-gradient",
            "full-weight-gradient",
            "full-float-forward",
            "full-float-input-gradient",
            "full-float-weight-gradient",
            "full-float",
        ],
    },
    Table {
        title: "Integer products: all three on and off",
        rows: &[
            "full",
            "full-float",
            "balanced",
            "balanced-float",
            "compact",
            "compact-float",
            "paper",
            "paper-float",
        ],
    },
];

/// The row of that name.
pub(super) fn named(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// The rows to run: those that are named, or those of the main table and, if asked for, of the ablations.
///
/// Errors: a name that there is no row of.
pub(super) fn chosen(only: &[String], ablations: bool) -> Result<Vec<&'static Row>> {
    if let Some(unknown) = only.iter().find(|name| named(name).is_none()) {
        bail!("--only: no row is called {unknown}; `cargo xtask parity --list` has the names");
    }
    let wanted = |row: &&Row| match only {
        [] => ablations || MAIN.rows.contains(&row.name),
        only => only.iter().any(|name| name == row.name),
    };
    Ok(ROWS.iter().filter(wanted).collect())
}

/// Prints all rows.
pub(super) fn list() {
    ROWS.iter().for_each(|row| println!("{:22} {}", row.name, row.flags));
}

/// Options as a command line has them.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Flags {
    #[command(flatten)]
    args: FinetuneArgs,
}

impl Row {
    /// The options that all share, with those of this row instead where it has any.
    pub(super) fn over(&self, shared: &FinetuneArgs) -> Result<FinetuneArgs> {
        let own = Flags::try_parse_from(self.flags.split_whitespace())
            .with_context(|| format!("the options of the row {}", self.name))?;
        let mut options = given(shared)?;
        options.extend(given(&own.args)?);
        let mut args: FinetuneArgs = serde_json::from_value(Value::Object(options))?;
        args.layout.no_shuffle = shared.layout.no_shuffle;
        Ok(args)
    }
}

/// The options that are given, by name.
fn given(args: &FinetuneArgs) -> Result<Map<String, Value>> {
    let Value::Object(mut map) = serde_json::to_value(args)? else { return Ok(Map::new()) };
    map.retain(|_, value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()));
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qft_train::options::OptimizerKind;

    #[test]
    fn every_row_can_be_resolved_and_no_two_are_the_same() {
        let mut shared = FinetuneArgs::default();
        shared.files.model = Some("model".into());
        shared.files.data = vec!["data".into()];
        shared.files.out = Some("out".into());
        shared.training.lr = Some(3e-4);
        shared.training.insist = Some(true);
        shared.layout.no_shuffle = true;
        let resolve = |row: &Row| row.over(&shared).unwrap().resolve().unwrap();
        let all: Vec<_> = ROWS.iter().map(resolve).collect();
        for (i, options) in all.iter().enumerate() {
            assert_eq!(options.training.optimizer.lr, 3e-4);
            assert!(!options.layout.shuffle && options.training.insist);
            assert!(!all[..i].contains(options), "{}", ROWS[i].name);
            assert!(ROWS[..i].iter().all(|row| row.name != ROWS[i].name));
        }
        let adamw = resolve(named(ADAMW).unwrap());
        assert_eq!(adamw.training.optimizer.kind, OptimizerKind::AdamW);
    }

    #[test]
    fn tables_name_rows_and_every_row_is_in_a_table() {
        let listed = |name| {
            let tables = ABLATIONS.iter().chain([&MAIN]);
            tables.flat_map(|table| table.rows).any(|row| *row == name)
        };
        assert!(ROWS.iter().all(|row| listed(row.name)));
        let mut names = ABLATIONS.iter().chain([&MAIN]).flat_map(|table| table.rows);
        assert!(names.all(|name| named(name).is_some()));
    }

    #[test]
    fn rows_are_chosen() {
        let names = |only: &[&str], ablations| {
            let only: Vec<_> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&only, ablations).map(|rows| rows.len())
        };
        assert_eq!(names(&[], false).unwrap(), MAIN.rows.len());
        assert_eq!(names(&[], true).unwrap(), ROWS.len());
        assert_eq!(names(&["full-linear"], false).unwrap(), 1);
        assert!(names(&["fool"], false).unwrap_err().to_string().contains("fool"));
    }
}
