//! Data files: texts and records of every format.

use super::encoder::{Bytes, VOCAB_SIZE};
use super::{RENDERING, Target, scratch};
use qft_train::data::{Dataset, Documents, ModelTemplates, Reader};
use qft_train::options::{OnBadRecord, ReadingArgs, TrainOn};

/// A data file as text, JSON lines or JSON, down to micro-batches.
pub const RECORDS: Target = Target { name: "records", run: read, base_bytes: RENDERING };

fn read(bytes: &[u8]) {
    let folder = scratch::folder("records");
    for name in ["data.jsonl", "data.txt"] {
        let path = scratch::write(&folder, name, bytes);
        for (train_on, on_bad_record) in [
            (TrainOn::Completion, None),
            (TrainOn::Turns, Some(OnBadRecord::Skip)),
            (TrainOn::All, None),
        ] {
            let train_on = Some(train_on);
            let options = ReadingArgs { train_on, on_bad_record, ..Default::default() }.resolve();
            let reader = Reader {
                encoder: &Bytes,
                templates: ModelTemplates::default(),
                options: &options,
                seq_len: 64,
                vocab_size: VOCAB_SIZE,
            };
            if let Ok(documents) = reader.read(std::slice::from_ref(&path)) {
                check(documents);
            }
            if let Ok((train, held_out)) = reader.read_split(std::slice::from_ref(&path), 0.25) {
                check(train);
                check(held_out);
            }
        }
    }
}

fn check(documents: Documents) {
    let _ = documents.sha256();
    let (tokens, learned) = (documents.tokens(), documents.target_tokens());
    assert!(learned <= tokens, "{documents}");
    for pack in [false, true] {
        let Ok(data) = Dataset::new(documents.clone(), 64, pack) else { return };
        assert!(data.longest() <= 64);
        assert_eq!(
            data.batches(3).map(|batch| batch.expect("in memory").tokens()).sum::<usize>(),
            tokens
        );
    }
}
