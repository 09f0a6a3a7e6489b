//! Documents of each kind of record, with a tokenizer of bytes.

use super::*;
use crate::data::Dataset;
use crate::options::{OnBadRecord, ReadingArgs};
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

    fn padding(&self) -> Option<u32> {
        None
    }

    fn eos(&self) -> &[u32] {
        &self.eos
    }

    fn is_added(&self, id: u32) -> bool {
        [BOS, EOS].contains(&id)
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
        self.read_text("f.jsonl", format, &record.to_string())
    }

    fn read_text(&self, name: &str, format: DataFormat, text: &str) -> Result<Documents> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let options = ReadingOptions { format, ..self.options.clone() };
        self.reader(&options).read(&[path])
    }

    fn reader<'a>(&'a self, options: &'a ReadingOptions) -> Reader<'a> {
        Reader {
            encoder: &self.encoder,
            templates: ModelTemplates::default(),
            options,
            seq_len: self.seq_len,
            vocab_size: 600,
        }
    }
}

#[test]
fn texts_are_learned_whole_and_end() {
    let mut setup = Setup::new("auto", TrainOn::Completion);
    setup.seq_len = 4;
    let documents = setup.read(DataFormat::JsonlText, json!({"text": "abcde"})).unwrap();
    let texts: Vec<_> =
        (0..documents.len()).map(|d| decode(documents.get(d).unwrap().ids())).collect();
    assert_eq!(texts, ["<s>abc", "<s>e"]);
    let targets: Vec<_> =
        (0..documents.len()).map(|d| decode(documents.get(d).unwrap().targets())).collect();
    assert_eq!(targets, ["abcd", "e</s>"]);
    let documents = setup.read(DataFormat::JsonlText, json!({"text": ""})).unwrap();
    assert_eq!((documents.len(), documents.counts().dropped), (0, 1));
}

#[test]
fn completions_are_learned_and_prompts_are_not() {
    let record = json!({"prompt": "ab:", "completion": " cd"});
    let setup = Setup::new("auto", TrainOn::Completion);
    let documents = setup.read(DataFormat::PromptCompletion, record.clone()).unwrap();
    assert_eq!(decode(documents.get(0).unwrap().ids()), "<s>ab: cd");
    assert_eq!(decode(documents.get(0).unwrap().targets()), "___ cd</s>");
    // A token that reaches from the prompt into the completion is learned.
    let straddling = json!({"prompt": "ab: ", "completion": "cd"});
    let documents = setup.read(DataFormat::PromptCompletion, straddling).unwrap();
    assert_eq!(decode(documents.get(0).unwrap().targets()), "___ cd</s>");
    let all = Setup::new("auto", TrainOn::All);
    let documents = all.read(DataFormat::PromptCompletion, record.clone()).unwrap();
    assert_eq!(decode(documents.get(0).unwrap().targets()), "ab: cd</s>");
    let chatml = Setup::new("chatml", TrainOn::Completion);
    let documents = chatml.read(DataFormat::PromptCompletion, record).unwrap();
    assert!(
        decode(documents.get(0).unwrap().ids()).starts_with("<s><|im_start|>user\nab:<|im_end|>")
    );
    assert!(decode(documents.get(0).unwrap().targets()).ends_with("_ cd<|im_end|>\n</s>"));
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
        let targets = decode(documents.get(0).unwrap().targets());
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
    assert_eq!(decode(documents.get(0).unwrap().ids()), format!("<s>q\n{call}"));
}

#[test]
fn what_has_nothing_to_learn_is_left_out() {
    let setup = Setup::new("none", TrainOn::Completion);
    let talk = json!({"messages": [{"role": "user", "content": "q"}]});
    let documents = setup.read(DataFormat::Messages, talk).unwrap();
    assert_eq!(documents.counts().dropped, 1);
    let error = Dataset::new(documents, 8, true).unwrap_err().to_string();
    assert!(error.contains("nothing to learn"), "{error}");
    let mut short = Setup::new("auto", TrainOn::Completion);
    short.seq_len = 2;
    let record = json!({"prompt": "abcdef", "completion": "g"});
    let documents = short.read(DataFormat::PromptCompletion, record).unwrap();
    assert_eq!((documents.counts().too_long, documents.counts().dropped), (1, 0));
    short.options.too_long = Some(TooLong::Cut);
    let record = json!({"prompt": "abcdef", "completion": "g"});
    let documents = short.read(DataFormat::PromptCompletion, record).unwrap();
    assert_eq!((documents.counts().truncated, documents.counts().dropped), (1, 1));
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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.txt");
    std::fs::write(&path, "zz").unwrap();
    let small = Reader { vocab_size: 100, ..setup.reader(&setup.options) };
    let error = format!("{:#}", small.read(&[path]).unwrap_err());
    assert!(error.contains("f.txt") && error.contains("outside"), "{error}");
}

#[test]
fn bad_records_are_told_with_their_places() {
    let mut setup = Setup::new("auto", TrainOn::Completion);
    let text = "{\"x\": 1}\n{\"text\": \"a\"}\n{bad\n{\"prompt\": \"b\"}\n";
    assert!(setup.read_text("a.jsonl", DataFormat::Auto, text).is_err());
    setup.options.on_bad_record = OnBadRecord::Skip;
    let documents = setup.read_text("a.jsonl", DataFormat::Auto, text).unwrap();
    assert_eq!((documents.len(), documents.counts().read, documents.counts().bad), (1, 4, 3));
    let places = [":1: cannot tell", ":3: column 2: is not", ":4: is not a record"];
    for (bad, place) in documents.left_out().iter().zip(places) {
        assert!(bad.what.contains(place), "{place} in {bad:?}");
    }
    for (text, told) in [
        ("{\"x\": 1}\n", "none of its 1 records"),
        ("[]", "no records"),
        ("{\"words\": \"a\"}\n", "none of its 1 records"),
    ] {
        let error = setup.read_text("a.json", DataFormat::Auto, text).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    setup.options.on_bad_record = OnBadRecord::Error;
    for (name, text, told) in [
        ("a.jsonl", "{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n", "a.jsonl:2"),
        ("a.jsonl", "{\"words\": \"a\"}\n", "words"),
        ("a.json", "[{\"text\": \"a\"}, 3]", "record 2"),
        ("a.json", "3", "object"),
        ("a.csv", "a,b\nc,d\n", "[a, b]"),
    ] {
        let error = format!("{:#}", setup.read_text(name, DataFormat::Auto, text).unwrap_err());
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn lists_in_cells_and_columns_of_other_names() {
    let mut setup = Setup::new("none", TrainOn::Completion);
    setup.options.fields = vec!["messages=chat".parse().unwrap()];
    let csv = "chat,id\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"x\"\"}, \
               {\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"y\"\"}]\",3\n";
    let documents = setup.read_text("a.csv", DataFormat::Auto, csv).unwrap();
    assert_eq!(decode(documents.get(0).unwrap().ids()), "<s>x\ny");
}

#[test]
fn the_split_takes_the_last_part() {
    let mut setup = Setup::new("auto", TrainOn::Completion);
    setup.seq_len = 5;
    let dir = tempfile::tempdir().unwrap();
    let lines: String = (0..9).map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect();
    let text = "abcdefghijklmnopqrst";
    for (name, text, fraction, sides) in [
        ("a.txt", text, 0.5, ["<s>abcd|<s>fghi", "<s>klmn|<s>pqrs"]),
        ("a.jsonl", &lines, 0.25, ["<s>0|<s>1|<s>2|<s>3|<s>4|<s>5|<s>6", "<s>7|<s>8"]),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let reader = setup.reader(&setup.options);
        let (train, held_out) = reader.read_split(std::slice::from_ref(&path), fraction).unwrap();
        for (documents, expected) in [train, held_out].iter().zip(sides) {
            let texts: Vec<_> =
                (0..documents.len()).map(|d| decode(documents.get(d).unwrap().ids())).collect();
            assert_eq!(texts.join("|"), expected);
        }
        for nothing in [0.999, 0.001] {
            let error =
                reader.read_split(std::slice::from_ref(&path), nothing).unwrap_err().to_string();
            assert!(error.contains("leaves nothing on one side"), "{error}");
        }
    }
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
        let targets: Vec<_> =
            (0..documents.len()).map(|d| decode(documents.get(d).unwrap().targets())).collect();
        assert_eq!(targets, texts, "{too_long:?}");
        assert_eq!(documents.counts().too_long, usize::from(texts.is_empty()));
    }
    let mut setup = Setup::new("auto", TrainOn::Completion);
    (setup.seq_len, setup.options.too_long) = (4, Some(TooLong::Drop));
    let documents = setup.read(DataFormat::JsonlText, json!({"text": "abcde"})).unwrap();
    assert_eq!((documents.len(), documents.counts().too_long), (0, 1));
}

#[test]
fn begin_and_end_are_not_doubled() {
    let setup = Setup::new("auto", TrainOn::Completion);
    for text in ["<s>ab</s>", "ab", "<s>ab", "ab</s>"] {
        let documents = setup.read(DataFormat::JsonlText, json!({"text": text})).unwrap();
        assert_eq!(decode(documents.get(0).unwrap().ids()), "<s>ab", "{text}");
        assert_eq!(decode(documents.get(0).unwrap().targets()), "ab</s>", "{text}");
    }
    // An end within an answer is not its own.
    let record = json!({"prompt": "q", "completion": "a</s>b"});
    let documents = setup.read(DataFormat::PromptCompletion, record).unwrap();
    assert_eq!(decode(documents.get(0).unwrap().targets()), "_a</s>b</s>");
}

#[test]
fn what_never_ends_and_cannot_be_spelled_is_counted() {
    let mut setup = Setup::new("chatml", TrainOn::Completion);
    let talk = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a?"}]});
    let documents = setup.read(DataFormat::Messages, talk.clone()).unwrap();
    let counts = documents.counts();
    assert_eq!((counts.samples, counts.endless, counts.unknown), (1, 0, 1));
    setup.encoder.eos.clear();
    let documents = setup.read(DataFormat::Messages, talk).unwrap();
    assert_eq!((documents.counts().samples, documents.counts().endless), (1, 1));
    // One end is not enough for two answers.
    setup.encoder.eos = vec![EOS];
    let record = json!({"messages": [
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"},
    ]});
    let documents = setup.read(DataFormat::Messages, record).unwrap();
    assert_eq!(documents.counts().endless, 1);
}

#[test]
fn conversations_take_a_template_whose_turns_end() {
    let talk = json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]});
    let documents =
        Setup::new("auto", TrainOn::Completion).read(DataFormat::Messages, talk).unwrap();
    // The vocabulary lacks the marks of ChatML.
    assert!(
        decode(documents.get(0).unwrap().targets()).contains("_a</s>_"),
        "{}",
        decode(documents.get(0).unwrap().targets())
    );
}

#[test]
fn bad_records_can_be_left_out() {
    let talk = json!({"messages": [{"role": "tool", "content": "q"}]});
    let mut setup = Setup::new("alpaca", TrainOn::Completion);
    let error = format!("{:#}", setup.read(DataFormat::Messages, talk.clone()).unwrap_err());
    assert!(error.contains("f.jsonl:1") && error.contains("answers of tools"), "{error}");
    setup.options.on_bad_record = OnBadRecord::Skip;
    let error = setup.read(DataFormat::Messages, talk.clone()).unwrap_err().to_string();
    assert!(error.contains("none of its 1 records"), "{error}");
    let good = json!({"messages": [{"role": "assistant", "content": "a"}]});
    let lines = format!("{talk}\n{good}");
    let documents = setup.read_text("f.jsonl", DataFormat::Messages, &lines).unwrap();
    assert_eq!((documents.counts().bad, documents.len()), (1, 1));
    assert!(documents.to_string().contains("f.jsonl:1"), "{documents}");
}

#[test]
fn the_token_that_ends_turns_is_known_by_the_template() {
    let end = |template: &str, eos: Vec<u32>| {
        let mut setup = Setup::new(template, TrainOn::Completion);
        setup.encoder.eos = eos;
        setup.reader(&setup.options).end_of_turn().unwrap()
    };
    // Templates get the first end token; a text that is no token of its own ends nothing.
    assert_eq!(end("alpaca", vec![EOS]), Some(EOS));
    assert_eq!(end("alpaca", Vec::new()), None);
    assert_eq!(end("chatml", vec![EOS]), None);
    assert_eq!(end("none", vec![EOS]), Some(EOS));
    let dir = tempfile::tempdir().unwrap();
    let file = |source: &str| {
        let path = dir.path().join("t.jinja");
        std::fs::write(&path, source).unwrap();
        path.display().to_string()
    };
    let turns =
        |end: &str| format!("{{% for m in messages %}}{{{{ m.content }}}}{end}{{% endfor %}}");
    assert_eq!(end(&file(&turns(" </s>")), Vec::new()), Some(EOS));
    // What begins a text ends none.
    assert_eq!(end(&file(&turns("<s>")), Vec::new()), None);
    let setup = Setup::new(&dir.path().join("none").display().to_string(), TrainOn::Completion);
    assert!(setup.reader(&setup.options).end_of_turn().is_err());
}

#[test]
fn answers_that_say_nothing_or_begin_within_a_token_are_counted() {
    let setup = Setup::new("auto", TrainOn::Completion);
    // A blank and the byte after it are a token.
    let counts = |prompt: &str, completion: &str| {
        let record = json!({"prompt": prompt, "completion": completion});
        let counts = setup.read(DataFormat::PromptCompletion, record).unwrap().counts();
        (counts.empty, counts.merged)
    };
    assert_eq!(counts("a:", " b"), (0, 0));
    assert_eq!(counts("a: ", "b"), (0, 1));
    let alpaca = Setup::new("alpaca", TrainOn::Completion);
    let nothing = json!({"prompt": "q", "completion": ""});
    let documents = alpaca.read(DataFormat::PromptCompletion, nothing).unwrap();
    assert_eq!(documents.counts().empty, 1);
    let chat = Setup::new("chatml", TrainOn::Completion);
    let record = json!({"prompt": "q", "completion": "a", "system": "Be kind."});
    let documents = chat.read(DataFormat::PromptCompletion, record.clone()).unwrap();
    assert!(decode(documents.get(0).unwrap().ids()).contains("Be kind."));
    let error = setup.read(DataFormat::PromptCompletion, record).unwrap_err();
    assert!(format!("{error:#}").contains("give --template"), "{error:#}");
}
