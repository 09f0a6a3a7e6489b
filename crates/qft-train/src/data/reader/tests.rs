//! Documents of each kind of record, with a tokenizer of bytes.

use super::*;
use crate::data::Dataset;
use crate::options::ReadingArgs;
use qft_llama::IGNORE;
use serde_json::json;
use std::ops::Range;

const BOS: u32 = 256;
const EOS: u32 = 257;

/// Bytes, `<s>` and `</s>`; a space and the character after it are one token from 300 on.
struct Bytes {
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl TextEncoder for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_with_places(text)?.0)
    }

    fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        let (mut ids, mut places, mut rest) = (Vec::new(), Vec::new(), text.as_bytes());
        while let Some((&byte, after)) = rest.split_first() {
            let (id, len) = match after.first() {
                _ if rest.starts_with(b"</s>") => (EOS, 4),
                _ if rest.starts_with(b"<s>") => (BOS, 3),
                Some(&next) if byte == b' ' => (300 + u32::from(next), 2),
                _ => (u32::from(byte), 1),
            };
            ids.push(id);
            let start = text.len() - rest.len();
            places.push(start..start + len);
            rest = &rest[len..];
        }
        Ok((ids, places))
    }

    fn before_text(&self) -> &[u32] {
        self.bos.as_slice()
    }

    fn after_text(&self) -> &[u32] {
        &[]
    }

    fn bos(&self) -> Option<u32> {
        self.bos
    }

    fn unknown(&self) -> Option<u32> {
        Some(u32::from(b'?'))
    }

    fn eos(&self) -> &[u32] {
        &self.eos
    }

    fn token(&self, id: u32) -> Option<String> {
        match id {
            BOS => Some("<s>".into()),
            EOS => Some("</s>".into()),
            _ => None,
        }
    }
}

fn decode(ids: impl Iterator<Item = u32>) -> String {
    let text = |id: u32| match id {
        BOS => "<s>".to_string(),
        EOS => "</s>".to_string(),
        IGNORE => "_".to_string(),
        id if id >= 300 => format!(" {}", char::from((id - 300) as u8)),
        id => char::from(id as u8).to_string(),
    };
    ids.map(text).collect()
}

struct Setup {
    encoder: Bytes,
    options: ReadingOptions,
    seq_len: usize,
}

impl Setup {
    fn new(template: &str, train_on: TrainOn) -> Self {
        let args = ReadingArgs {
            template: Some(template.to_string().into()),
            train_on: Some(train_on),
            ..Default::default()
        };
        let options = args.resolve();
        let encoder = Bytes { bos: Some(BOS), eos: vec![EOS] };
        Self { encoder, options, seq_len: 1000 }
    }

    fn read(&self, format: DataFormat, record: serde_json::Value) -> Result<Documents> {
        let reader = Reader {
            encoder: &self.encoder,
            templates: ModelTemplates::default(),
            options: &self.options,
            seq_len: self.seq_len,
            vocab_size: 600,
        };
        let record = Record::from_json(record, format)?;
        let records = vec![(crate::data::source::Place::Line(7), record)];
        let content = Content::Records { format, records };
        let mut documents = Documents::new(600, self.seq_len);
        reader.add(&Source { path: "f.jsonl".into(), content, bad: vec![] }, &mut documents)?;
        Ok(documents)
    }
}

#[test]
fn windows_predict_every_token_once() {
    let ids: Vec<u32> = (0..10).collect();
    let with: Vec<_> = windows(&ids, &[99], 4).collect();
    assert_eq!(with, [vec![99, 0, 1, 2, 3], vec![99, 4, 5, 6, 7], vec![99, 8, 9]]);
    let without: Vec<_> = windows(&ids, &[], 4).collect();
    assert_eq!(without, [vec![0, 1, 2, 3, 4], vec![4, 5, 6, 7, 8], vec![8, 9]]);
    assert_eq!(windows(&ids[..9], &[], 4).count(), 2);
    assert_eq!(windows(&ids[..8], &[99], 4).count(), 2);
    for empty in [windows(&[], &[99], 4).count(), windows(&[5], &[], 4).count()] {
        assert_eq!(empty, 0);
    }
}

#[test]
fn texts_are_learned_whole_and_end() {
    let mut setup = Setup::new("auto", TrainOn::Completion);
    setup.seq_len = 4;
    let documents = setup.read(DataFormat::JsonlText, json!({"text": "abcde"})).unwrap();
    let texts: Vec<_> = (0..documents.len()).map(|d| decode(documents.ids(d))).collect();
    assert_eq!(texts, ["<s>abc", "<s>e"]);
    let targets: Vec<_> = (0..documents.len()).map(|d| decode(documents.targets(d))).collect();
    assert_eq!(targets, ["abcd", "e</s>"]);
    let documents = setup.read(DataFormat::JsonlText, json!({"text": ""})).unwrap();
    assert_eq!((documents.len(), documents.counts.dropped), (0, 1));
}

#[test]
fn completions_are_learned_and_prompts_are_not() {
    let record = json!({"prompt": "ab:", "completion": " cd"});
    let setup = Setup::new("auto", TrainOn::Completion);
    let documents = setup.read(DataFormat::PromptCompletion, record.clone()).unwrap();
    assert_eq!(decode(documents.ids(0)), "<s>ab: cd");
    assert_eq!(decode(documents.targets(0)), "___ cd</s>");
    // A token that reaches from the prompt into the completion is learned.
    let straddling = json!({"prompt": "ab: ", "completion": "cd"});
    let documents = setup.read(DataFormat::PromptCompletion, straddling).unwrap();
    assert_eq!(decode(documents.targets(0)), "___ cd</s>");
    let all = Setup::new("auto", TrainOn::All);
    let documents = all.read(DataFormat::PromptCompletion, record.clone()).unwrap();
    assert_eq!(decode(documents.targets(0)), "ab: cd</s>");
    let chatml = Setup::new("chatml", TrainOn::Completion);
    let documents = chatml.read(DataFormat::PromptCompletion, record).unwrap();
    assert!(decode(documents.ids(0)).starts_with("<s><|im_start|>user\nab:<|im_end|>"));
    assert!(decode(documents.targets(0)).ends_with("_ cd<|im_end|>\n</s>"));
}

#[test]
fn conversations_are_learned_where_the_assistant_speaks() {
    let talk = json!({"messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "a2"},
    ]});
    for (template, told) in [
        ("none", "__a1</s>__a2</s>"),
        ("llama2", " a1 </s>"),
        ("alpaca", "a1</s>"),
        ("chatml", "a2<|im_end|>\n</s>"),
    ] {
        let setup = Setup::new(template, TrainOn::Completion);
        let documents = setup.read(DataFormat::Messages, talk.clone()).unwrap();
        let targets = decode(documents.targets(0));
        assert!(targets.contains(told), "{template}: {targets}");
        assert!(!targets.contains(['q', 'r']), "{template}: {targets}");
    }
}

#[test]
fn calls_are_text_for_templates_without_calls() {
    let call = "{\"name\":  \"f\"}";
    let talk = json!({"conversations": [
        {"from": "human", "value": "q"}, {"from": "function_call", "value": call},
    ]});
    let setup = Setup::new("none", TrainOn::Completion);
    let documents = setup.read(DataFormat::Sharegpt, talk).unwrap();
    assert_eq!(decode(documents.ids(0)), format!("<s>q\n{call}"));
}

#[test]
fn what_has_nothing_to_learn_is_left_out() {
    let setup = Setup::new("none", TrainOn::Completion);
    let talk = json!({"messages": [{"role": "user", "content": "q"}]});
    let documents = setup.read(DataFormat::Messages, talk).unwrap();
    assert_eq!(documents.counts.dropped, 1);
    let error = Dataset::new(documents, 8, true).unwrap_err().to_string();
    assert!(error.contains("nothing to learn"), "{error}");
    let mut short = Setup::new("auto", TrainOn::Completion);
    short.seq_len = 2;
    let record = json!({"prompt": "abcdef", "completion": "g"});
    let documents = short.read(DataFormat::PromptCompletion, record).unwrap();
    assert_eq!((documents.counts.too_long, documents.counts.dropped), (1, 0));
    short.options.too_long = Some(TooLong::Cut);
    let record = json!({"prompt": "abcdef", "completion": "g"});
    let documents = short.read(DataFormat::PromptCompletion, record).unwrap();
    assert_eq!((documents.counts.truncated, documents.counts.dropped), (1, 1));
}

#[test]
fn errors_name_the_record() {
    let setup = Setup::new("/no/such.jinja", TrainOn::All);
    let talk = json!({"messages": [{"role": "user", "content": "q"}]});
    let error = format!("{:#}", setup.read(DataFormat::Messages, talk.clone()).unwrap_err());
    assert!(error.contains("/no/such.jinja") && error.contains("chatml"), "{error}");
    let setup = Setup::new("model", TrainOn::All);
    let error = format!("{:#}", setup.read(DataFormat::Messages, talk).unwrap_err());
    assert!(error.contains("no chat template"), "{error}");
    let setup = Setup::new("auto", TrainOn::All);
    let big = setup.read(DataFormat::JsonlText, json!({"text": "a \u{7f}\u{7f}"}));
    assert!(big.is_ok());
    let mut small = Documents::new(100, 8);
    let reader = Reader {
        encoder: &setup.encoder,
        templates: ModelTemplates::default(),
        options: &setup.options,
        seq_len: 8,
        vocab_size: 100,
    };
    let source = Source { path: "f.txt".into(), content: Content::Text("zz".into()), bad: vec![] };
    let error = format!("{:#}", reader.add(&source, &mut small).unwrap_err());
    assert!(error.contains("f.txt") && error.contains("outside"), "{error}");
}

#[test]
fn long_records_are_dropped_cut_or_split() {
    let record = json!({"prompt": "ab:", "completion": "cdefg"});
    for (too_long, texts) in [
        (None, vec![]),
        (Some(TooLong::Drop), vec![]),
        (Some(TooLong::Cut), vec!["__:c".replace(':', "_")]),
        (Some(TooLong::Split), vec!["___c".into(), "defg".into(), "</s>".into()]),
    ] {
        let mut setup = Setup::new("auto", TrainOn::Completion);
        (setup.seq_len, setup.options.too_long) = (4, too_long);
        let documents = setup.read(DataFormat::PromptCompletion, record.clone()).unwrap();
        let targets: Vec<_> = (0..documents.len()).map(|d| decode(documents.targets(d))).collect();
        assert_eq!(targets, texts, "{too_long:?}");
        assert_eq!(documents.counts.too_long, usize::from(texts.is_empty()));
    }
    let mut setup = Setup::new("auto", TrainOn::Completion);
    (setup.seq_len, setup.options.too_long) = (4, Some(TooLong::Drop));
    let documents = setup.read(DataFormat::JsonlText, json!({"text": "abcde"})).unwrap();
    assert_eq!((documents.len(), documents.counts.too_long), (0, 1));
}

#[test]
fn begin_and_end_are_not_doubled() {
    let setup = Setup::new("auto", TrainOn::Completion);
    for text in ["<s>ab</s>", "ab", "<s>ab", "ab</s>"] {
        let documents = setup.read(DataFormat::JsonlText, json!({"text": text})).unwrap();
        assert_eq!(decode(documents.ids(0)), "<s>ab", "{text}");
        assert_eq!(decode(documents.targets(0)), "ab</s>", "{text}");
    }
    // An end within an answer is not its own.
    let record = json!({"prompt": "q", "completion": "a</s>b"});
    let documents = setup.read(DataFormat::PromptCompletion, record).unwrap();
    assert_eq!(decode(documents.targets(0)), "_a</s>b</s>");
}

#[test]
fn what_never_ends_and_cannot_be_spelled_is_counted() {
    let mut setup = Setup::new("chatml", TrainOn::Completion);
    let talk = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a?"}]});
    let documents = setup.read(DataFormat::Messages, talk.clone()).unwrap();
    let counts = documents.counts;
    assert_eq!((counts.samples, counts.endless, counts.unknown), (1, 0, 1));
    setup.encoder.eos.clear();
    let documents = setup.read(DataFormat::Messages, talk).unwrap();
    assert_eq!((documents.counts.samples, documents.counts.endless), (1, 1));
}

#[test]
fn conversations_take_a_template_whose_turns_end() {
    let talk = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
    let documents =
        Setup::new("auto", TrainOn::Completion).read(DataFormat::Messages, talk).unwrap();
    // The vocabulary lacks the marks of ChatML.
    assert!(decode(documents.targets(0)).contains("_a</s>_"), "{}", decode(documents.targets(0)));
}

#[test]
fn bad_records_can_be_left_out() {
    let talk = json!({"messages": [{"role": "tool", "content": "q"}]});
    let mut setup = Setup::new("alpaca", TrainOn::Completion);
    let error = format!("{:#}", setup.read(DataFormat::Messages, talk.clone()).unwrap_err());
    assert!(error.contains("f.jsonl:7") && error.contains("answers of tools"), "{error}");
    setup.options.on_bad_record = OnBadRecord::Skip;
    let documents = setup.read(DataFormat::Messages, talk).unwrap();
    assert_eq!(documents.counts.bad, 1);
    assert!(documents.to_string().contains("f.jsonl:7"), "{documents}");
}
