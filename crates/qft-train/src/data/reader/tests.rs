//! Documents of each kind of record, with a tokenizer of bytes.

use super::*;
use crate::data::Dataset;
use qft_llama::IGNORE;
use serde_json::json;

const BOS: u32 = 256;
const EOS: u32 = 257;

/// Bytes, `<s>` and `</s>`; a space and the character after it are one token from 300 on.
struct Bytes {
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl TextEncoder for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let (mut ids, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((&byte, after)) = rest.split_first() {
            let (id, len) = match after.first() {
                _ if rest.starts_with(b"</s>") => (EOS, 4),
                _ if rest.starts_with(b"<s>") => (BOS, 3),
                Some(&next) if byte == b' ' => (300 + u32::from(next), 2),
                _ => (u32::from(byte), 1),
            };
            ids.push(id);
            rest = &rest[len..];
        }
        Ok(ids)
    }

    fn bos(&self) -> Option<u32> {
        self.bos
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
        let options = ReadingOptions {
            format: DataFormat::Auto,
            template: template.to_string().into(),
            train_on,
        };
        let encoder = Bytes { bos: Some(BOS), eos: vec![EOS] };
        Self { encoder, options, seq_len: 1000 }
    }

    fn read(&self, format: DataFormat, record: serde_json::Value) -> Result<Documents> {
        let reader = Reader {
            encoder: &self.encoder,
            chat_template: None,
            options: &self.options,
            seq_len: self.seq_len,
            vocab_size: 600,
        };
        let record = Record::from_json(record, format)?;
        let records = vec![(crate::data::source::Place::Line(7), record)];
        let content = Content::Records { format, records };
        let mut documents = Documents::new(600, self.seq_len);
        reader.add(&Source { path: "f.jsonl".into(), content }, &mut documents)?;
        Ok(documents)
    }
}

#[test]
fn windows_predict_every_token_once() {
    let ids: Vec<u32> = (0..10).collect();
    let with: Vec<_> = windows(&ids, Some(99), 4).collect();
    assert_eq!(with, [vec![99, 0, 1, 2, 3], vec![99, 4, 5, 6, 7], vec![99, 8, 9]]);
    let without: Vec<_> = windows(&ids, None, 4).collect();
    assert_eq!(without, [vec![0, 1, 2, 3, 4], vec![4, 5, 6, 7, 8], vec![8, 9]]);
    assert_eq!(windows(&ids[..9], None, 4).count(), 2);
    assert_eq!(windows(&ids[..8], Some(99), 4).count(), 2);
    for empty in [windows(&[], Some(99), 4).count(), windows(&[5], None, 4).count()] {
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
        chat_template: None,
        options: &setup.options,
        seq_len: 8,
        vocab_size: 100,
    };
    let source = Source { path: "f.txt".into(), content: Content::Text("zz".into()) };
    let error = format!("{:#}", reader.add(&source, &mut small).unwrap_err());
    assert!(error.contains("f.txt") && error.contains("outside"), "{error}");
}
