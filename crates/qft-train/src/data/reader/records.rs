//! The records of a file, many at a time.

use super::{Parts, Reader};
use crate::data::documents::{DocumentWriter, Reason};
use crate::data::parallel::{in_order, threads};
use crate::data::progress::Tally;
use crate::data::records::{Record, detect, join_conversation, rename};
use crate::data::sample::Sample;
use crate::data::source::{Place, Row};
use crate::data::template::Template;
use crate::error::{Context, Error, Result, ensure};
use crate::options::{DataFormat, OnBadRecord};
use serde_json::Value;
use std::path::Path;

/// Records that a thread takes at a time.
const RECORDS_PER_THREAD: usize = 256;

/// Bytes of records that are in memory at a time, about.
const BATCH_BYTES: usize = 16 << 20;

/// Records of one file on their way to documents.
pub(super) struct Records<'a> {
    reader: Reader<'a>,
    path: &'a Path,
    /// The first of these are trained on.
    kept: u64,
    /// Records that were read.
    read: u64,
    /// How all of them are read; known from the first one that can be.
    known: Option<Known>,
    batch: Vec<Row>,
    batch_bytes: usize,
    /// What is wrong with the first one that cannot be read.
    first_bad: Option<String>,
    bad: u64,
}

/// How the records of a file become text.
struct Known {
    format: DataFormat,
    template: Option<Template>,
}

/// What a record became.
struct Made {
    place: Place,
    /// Its samples, and whether they are of a text.
    samples: Result<(Vec<Sample>, bool)>,
    unseen: Unseen,
}

/// What the template leaves out of a conversation.
#[derive(Default)]
struct Unseen {
    tools: bool,
    thoughts: bool,
}

impl<'a> Records<'a> {
    pub(super) fn new(reader: Reader<'a>, path: &'a Path, kept: u64) -> Self {
        Self {
            reader,
            path,
            kept,
            read: 0,
            known: None,
            batch: Vec::new(),
            batch_bytes: 0,
            first_bad: None,
            bad: 0,
        }
    }

    /// Takes a record; when there are many, they become documents.
    pub(super) fn push(&mut self, row: Row, parts: &mut Parts, tally: &Tally<'_>) -> Result<()> {
        self.batch_bytes += row.bytes();
        self.batch.push(row);
        if self.batch.len() < RECORDS_PER_THREAD * threads() && self.batch_bytes < BATCH_BYTES {
            return Ok(());
        }
        tally.tell()?;
        self.encode(parts)
    }

    /// Makes documents of the rest.
    ///
    /// Errors: there was no record, or none that can be read.
    pub(super) fn finish(mut self, parts: &mut Parts) -> Result<()> {
        self.encode(parts)?;
        let file = self.path.display();
        ensure!(self.read > 0, "{file}: has no records; give a file that holds some");
        ensure!(
            self.bad < self.read,
            "{file}: none of its {} records can be read, as {}",
            self.bad,
            self.first_bad.unwrap_or_default()
        );
        Ok(())
    }

    fn encode(&mut self, parts: &mut Parts) -> Result<()> {
        let mut rows = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        while self.known.is_none() && !rows.is_empty() {
            let rest = rows.split_off(1);
            rows = self.first(rows.remove(0), parts)?.into_iter().chain(rest).collect();
        }
        let Some(known) = self.known.take() else { return Ok(()) };
        let reader = self.reader;
        let work = |row| reader.made(row, &known);
        in_order(rows, work, |made| self.take(made, parts))?;
        self.known = Some(known);
        Ok(())
    }

    /// Finds out how records are read by the first one; it is given back, unless it cannot be read and is left out.
    fn first(&mut self, row: Row, parts: &mut Parts) -> Result<Option<Row>> {
        let reader = self.reader;
        let place = row.place;
        let found = reader.format(row).and_then(|(format, row)| {
            Ok((Known { format, template: reader.template(format)? }, row))
        });
        match found {
            Ok((known, row)) => {
                if let Some(template) = &known.template {
                    parts.documents(self.read < self.kept).add_template(template.source());
                }
                self.known = Some(known);
                Ok(Some(row))
            }
            Err(error) => {
                self.take(Made { place, samples: Err(error), unseen: Unseen::default() }, parts)?;
                Ok(None)
            }
        }
    }

    /// Adds what a record became.
    fn take(&mut self, made: Made, parts: &mut Parts) -> Result<()> {
        let Made { place, samples, unseen } = made;
        let documents = parts.documents(self.read < self.kept);
        self.read += 1;
        documents.counts.read += 1;
        let named = || place.name(self.path);
        let (samples, is_text) = match samples.with_context(named) {
            Ok(samples) => samples,
            Err(error) if self.reader.options.on_bad_record == OnBadRecord::Skip => {
                self.bad += 1;
                leave_out_bad(&error, documents);
                self.first_bad.get_or_insert_with(|| format!("{error:#}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        documents.counts.tools_unseen += usize::from(unseen.tools);
        documents.counts.thoughts_unseen += usize::from(unseen.thoughts);
        let before = documents.counts.dropped;
        if samples.is_empty() {
            documents.counts.dropped += 1;
        }
        let lay = |sample| self.reader.lay(sample, is_text, &named, documents);
        samples.iter().try_for_each(lay).with_context(named)?;
        if documents.counts.dropped > before {
            documents.leave_out(Reason::NothingToLearn, named);
        }
        Ok(())
    }
}

fn leave_out_bad(error: &Error, documents: &mut DocumentWriter) {
    documents.counts.bad += 1;
    documents.leave_out(Reason::Bad, || format!("{error:#}"));
}

impl Reader<'_> {
    /// What a row becomes.
    fn made(&self, row: Row, known: &Known) -> Made {
        let place = row.place;
        let mut unseen = Unseen::default();
        let samples = (|| {
            let record = Record::from_json(self.named(row)?, known.format)?;
            if let (Record::Chat(talk) | Record::Completion { before: talk, .. }, Some(template)) =
                (&record, &known.template)
            {
                unseen.tools = !template.shows_tools(talk);
                unseen.thoughts = !template.shows_thoughts(talk);
            }
            let is_text = matches!(record, Record::Text(_));
            Ok((self.samples(&record, known.template.as_ref())?, is_text))
        })();
        Made { place, samples, unseen }
    }

    /// The format of records, of which this is the first, and the row.
    fn format(&self, row: Row) -> Result<(DataFormat, Row)> {
        let place = row.place;
        let value = row.parse()?;
        let named = self.named(Row::of(place, value.clone()))?;
        let format = match self.options.format {
            DataFormat::Auto => detect(&named)?,
            known => known,
        };
        // One that cannot be read says nothing about the others.
        Record::from_json(named, format)?;
        Ok((format, Row::of(place, value)))
    }

    /// A row as a value whose fields have the names that are read.
    fn named(&self, row: Row) -> Result<Value> {
        let mut value = row.parse()?;
        rename(&mut value, &self.options.fields)?;
        join_conversation(&mut value);
        Ok(value)
    }
}
