//! `qft data show`: documents as the model will see them.

use crate::data::documents::{LeftOut, Reason};
use crate::data::{Cache, Document, Documents, Loader};
use crate::error::{Result, ensure};
use crate::options::ShowOptions;
use crate::report::log::colours;
use crate::report::{Fetching, ReadingBar, write};
use crate::run::{ModelFolder, named};
use clap::ColorChoice;
use qft_hub::Need;
use qft_llama::Tokenizer;
use std::fmt::Write;

/// Columns of the longest bar of the histogram.
const BAR: usize = 40;

/// Runs the command; if `quiet`, without progress.
pub fn run(options: &ShowOptions, quiet: bool) -> Result<()> {
    let mut fetching = Fetching::new(quiet);
    let data = named::data(&options.data, &mut |notice| fetching.show(notice))?;
    let folder =
        ModelFolder::find(&options.model, Need::Text, &mut |notice| fetching.show(notice))?;
    let folder = folder.for_chats(&options.reading)?;
    let seq_len = options.step.seq_len(&folder.config)?;
    let cache = Cache::of(&options.cache)?;
    let bar = ReadingBar::new(quiet);
    let loader = Loader {
        reader: folder.reader(&options.reading, seq_len),
        model_sha256: &folder.text_sha256()?,
        cache: cache.as_ref(),
        told: &|progress| bar.show(progress),
    };
    let documents = loader.read(&data.paths)?;
    bar.finish();
    write(statistics(&documents, seq_len))?;
    let end = documents.len().min(options.first.saturating_add(options.count));
    ensure!(
        options.count == 0 || options.first < end || (options.first, end) == (0, 0),
        "--from: {} is beyond the {} documents",
        options.first + 1,
        documents.len()
    );
    let marks = Marks::choose(options.color);
    for number in options.first..end {
        let document = documents.get(number)?;
        let learned = document.marked().filter(|(_, learned)| *learned).count();
        let positions = documents.positions(number);
        write(format_args!(
            "--- document {} of {}: {positions} tokens, {learned} of them learned ---",
            number + 1,
            documents.len()
        ))?;
        write(match options.ids {
            true => tokens(&document, &folder.tokenizer, marks)?,
            false => text(&document, &folder.tokenizer, marks)?,
        })?;
    }
    Ok(())
}

/// What is put around what is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    before: &'static str,
    after: &'static str,
}

impl Marks {
    const GREEN: Self = Self { before: "\x1b[32m", after: "\x1b[0m" };
    const SIGNS: Self = Self { before: "⟦", after: "⟧" };

    fn choose(color: ColorChoice) -> Self {
        match color {
            ColorChoice::Always => Self::GREEN,
            ColorChoice::Auto if colours(&std::io::stdout()) => Self::GREEN,
            ColorChoice::Auto | ColorChoice::Never => Self::SIGNS,
        }
    }
}

/// Counts, lengths, and what was left out.
fn statistics(documents: &Documents, seq_len: usize) -> String {
    let mut text = format!("{documents}\n");
    let (all, learned) = (documents.tokens(), documents.target_tokens());
    if all > 0 {
        let percent = learned as f64 / all as f64 * 100.0;
        let _ = writeln!(text, "\n{percent:.1} % of the tokens are learned");
    }
    text.push_str(&histogram((0..documents.len()).map(|i| documents.positions(i)), seq_len));
    for (reason, title) in [
        (Reason::Bad, "cannot be read"),
        (Reason::TooLong, "longer than --seq-len, and left out"),
        (Reason::Cut, "longer than --seq-len, and cut"),
        (Reason::NothingToLearn, "nothing to learn"),
    ] {
        let of_reason: Vec<&LeftOut> =
            documents.left_out().iter().filter(|left_out| left_out.reason == reason).collect();
        if of_reason.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{title}:");
        for left_out in of_reason {
            let _ = writeln!(text, "  {}", left_out.what);
        }
    }
    text
}

/// How many documents there are of which lengths, up to each power of two.
fn histogram(lengths: impl Iterator<Item = usize>, seq_len: usize) -> String {
    let mut counts = Vec::new();
    let mut longest = 0;
    for length in lengths {
        let bucket = length.max(1).next_power_of_two().ilog2() as usize;
        counts.resize(counts.len().max(bucket + 1), 0usize);
        counts[bucket] += 1;
        longest = longest.max(length);
    }
    let Some(&most) = counts.iter().max() else { return String::new() };
    let first = counts.iter().position(|&count| count > 0).unwrap_or(0);
    let mut text = format!("\ntokens in a document (at most {longest}; --seq-len {seq_len})\n");
    for (bucket, &count) in counts.iter().enumerate().skip(first) {
        let (from, to) = ((1usize << bucket) / 2 + 1, 1usize << bucket);
        let bar = "█".repeat((count * BAR).div_ceil(most.max(1)));
        let _ = writeln!(text, "{from:>8} to {to:<8} {count:>9} {bar}");
    }
    text
}

/// The text of a document, what is learned between marks.
fn text(document: &Document, tokenizer: &Tokenizer, marks: Marks) -> Result<String> {
    let (mut ids, mut shown, mut text) = (Vec::new(), 0, String::new());
    let all: Vec<(u32, bool)> = document.marked().collect();
    for run in all.chunk_by(|a, b| a.1 == b.1) {
        ids.extend(run.iter().map(|&(id, _)| id));
        // What a token is as text depends on those before it.
        let so_far = tokenizer.decode(&ids)?;
        let more = so_far.get(shown..).unwrap_or_default();
        match run.first().is_some_and(|&(_, learned)| learned) {
            true => text.extend([marks.before, more, marks.after]),
            false => text.push_str(more),
        }
        shown = so_far.len();
    }
    text.push('\n');
    Ok(text)
}

/// The tokens of a document, one on a line.
fn tokens(document: &Document, tokenizer: &Tokenizer, marks: Marks) -> Result<String> {
    let mut text = String::new();
    for (id, learned) in document.marked() {
        let token = format!("{id:>8} {:?}", tokenizer.decode(&[id])?);
        let _ = match learned {
            true => writeln!(text, "learned {}{token}{}", marks.before, marks.after),
            false => writeln!(text, "        {token}"),
        };
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DocumentWriter;
    use qft_llama::LlamaConfig;
    use qft_testing::material::stories260k;

    #[test]
    fn what_is_learned_stands_out() {
        let dir = stories260k();
        let tokenizer = Tokenizer::from_dir(&dir, &LlamaConfig::from_dir(&dir).unwrap()).unwrap();
        let mut writer = DocumentWriter::in_memory(tokenizer.vocab_size(), 64);
        let ids = tokenizer.encode("Once upon a time there was a dog.").unwrap();
        writer.push(&ids, |i| i > 3).unwrap();
        let documents = writer.finish().unwrap();
        let document = documents.get(0).unwrap();
        let shown = text(&document, &tokenizer, Marks::SIGNS).unwrap();
        assert_eq!(shown.replace(['⟦', '⟧'], ""), "Once upon a time there was a dog.\n");
        assert!(shown.ends_with("a dog.⟧\n") && !shown.starts_with('⟦'), "{shown}");
        let lines = tokens(&document, &tokenizer, Marks::GREEN).unwrap();
        assert_eq!(
            lines.lines().filter(|line| line.starts_with("learned \x1b[32m")).count(),
            ids.len() - 4
        );
        let told = statistics(&documents, 64);
        assert!(told.contains("% of the tokens are learned") && told.contains('█'), "{told}");
    }

    #[test]
    fn lengths_are_counted_by_powers_of_two() {
        let text = histogram([1, 2, 3, 4, 5, 512, 511, 300].into_iter(), 512);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert!(lines[0].starts_with("       1 to 1                1 █"), "{text}");
        assert!(lines[2].contains("3 to 4                2 "), "{text}");
        assert!(lines.last().unwrap().contains("257 to 512              3 ████"), "{text}");
        assert!(histogram(std::iter::empty(), 8).is_empty());
    }
}
