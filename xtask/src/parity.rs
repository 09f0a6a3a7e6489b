//! `cargo xtask parity`: what INT8 states cost in quality, as a table that anyone can make.
//!
//! Every row of the table trains the same model on the same data in the same order, each at its own best of a small grid of
//! learning rates, and is compared with FP32 Lion and FP32 AdamW. What has run is kept as lines of JSON, so that a long
//! campaign can be stopped, gone on with and written up again.

mod campaign;
mod curves;
mod job;
mod options;
mod report;
mod results;
mod rows;
mod run;
mod statistics;

pub(crate) use options::Args;

use anyhow::Result;
use campaign::Campaign;
use results::Results;

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        rows::list();
        return Ok(());
    }
    let rows = rows::chosen(&args.only, args.ablations)?;
    let mut results = Results::open(&args.results())?;
    if !args.render {
        let campaign = Campaign::open(args)?;
        campaign.untrained(&mut results)?;
        for row in rows {
            campaign.row(row, &mut results)?;
        }
    }
    let path = args.report();
    report::write(results.outcomes(), &path)?;
    println!("wrote {}", path.canonicalize().unwrap_or(path).display());
    if args.quick {
        report::check(results.outcomes())?;
    }
    Ok(())
}
