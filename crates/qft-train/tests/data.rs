//! Reading of real data with real tokenizers. Skips where the test material is absent.

use qft_llama::{Batch, IGNORE, LlamaConfig, Tokenizer};
use qft_train::chat::{ChatTemplate, Conversation, SpecialTexts, TRAINING_DATE};
use qft_train::data::{Cache, Dataset, Documents, Loader, ModelTemplates, Order, Reader, Record};
use qft_train::options::{
    BuiltIn, CacheArgs, DataFormat, ReadingArgs, ReadingOptions, TemplateChoice,
};
use serde_json::Value;
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// The folder of test material, if there is one.
fn shared() -> Option<PathBuf> {
    let root = match std::env::var_os("QFT_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    };
    let data = root.join("data");
    if !data.is_dir() {
        println!("skipped: no test material at {}", data.display());
        return None;
    }
    Some(data)
}

/// A tokenizer for which any vocabulary is large enough.
fn tokenizer(dir: &Path) -> Tokenizer {
    let mut config = LlamaConfig::preset("llama-15m").expect("a preset");
    config.vocab_size = 200_000;
    config.bos_token_id = None;
    config.eos_token_ids.clear();
    Tokenizer::from_dir(dir, &config).expect("a tokenizer")
}

const TOKENIZERS: [&str; 5] = [
    "models/stories260k",
    "models/tinystories-656k",
    "tokenizers/llama-32k-spm",
    "tokenizers/dolma2-100k-bpe",
    "tokenizers/minimind-6400-bpe",
];

const INSTRUCT: [(&str, usize, DataFormat); 10] = [
    ("alpaca/alpaca_gpt4_en.json", 750, DataFormat::Alpaca),
    ("alpaca/rasbt_instructions.json", 850, DataFormat::Alpaca),
    ("alpaca/gpteacher_roleplay.json", 650, DataFormat::Alpaca),
    ("alpaca/dolly_hhrlhf.json", 750, DataFormat::Alpaca),
    ("sharegpt/oasst1_en.json", 373, DataFormat::Sharegpt),
    ("sharegpt/fastchat_dummy.json", 400, DataFormat::Sharegpt),
    ("sharegpt/glaive_toolcall_en.json", 225, DataFormat::Sharegpt),
    ("messages/oasst1_en.jsonl", 373, DataFormat::Messages),
    ("messages/gpteacher_roleplay.jsonl", 700, DataFormat::Messages),
    ("messages/kto_mix_en.jsonl", 110, DataFormat::Messages),
];

fn options(template: TemplateChoice) -> ReadingOptions {
    ReadingArgs { template: Some(template), ..Default::default() }.resolve()
}

fn reader<'a>(tokenizer: &'a Tokenizer, options: &'a ReadingOptions, seq_len: usize) -> Reader<'a> {
    Reader {
        encoder: tokenizer,
        templates: ModelTemplates {
            default: tokenizer.chat_template(),
            with_tools: tokenizer.chat_template_with_tools(),
        },
        options,
        seq_len,
        vocab_size: tokenizer.vocab_size(),
    }
}

/// The conversations of a file of JSON lines.
fn records(file: &Path) -> Vec<Record> {
    let text = std::fs::read_to_string(file).expect("a file");
    let record =
        |line| Record::from_json(serde_json::from_str(line).expect("JSON"), DataFormat::Messages);
    text.lines().map(|line| record(line).expect("a record")).collect()
}

/// The runs of learned tokens of a document.
fn learned(documents: &Documents, document: usize) -> Vec<Vec<u32>> {
    let targets: Vec<u32> = documents.get(document).expect("a document").targets().collect();
    let runs = targets.split(|&target| target == IGNORE);
    runs.filter(|run| !run.is_empty()).map(<[u32]>::to_vec).collect()
}

#[test]
fn every_instruct_file_is_read() {
    let Some(data) = shared() else { return };
    let tokenizer = tokenizer(&data.join("models/stories260k"));
    for (name, count, format) in INSTRUCT {
        let told = options(TemplateChoice::BuiltIn(BuiltIn::Chatml));
        let known = ReadingOptions { format, ..told.clone() };
        let [found, asked] = [told, known].map(|options| {
            reader(&tokenizer, &options, 2048).read(&[data.join("instruct").join(name)]).unwrap()
        });
        assert_eq!((found.counts().read, found), (count, asked), "{name}");
    }
}

#[test]
fn golden_chat_template() {
    let Some(data) = shared() else { return };
    let golden = std::fs::read(data.join("tokenizers/golden_chat_template.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let tokenizer = tokenizer(&data.join("tokenizers/minimind-6400-bpe"));
    let source = tokenizer.chat_template().unwrap();
    let special = SpecialTexts {
        bos: "<|im_start|>".into(),
        ends: vec!["<|im_end|>".into()],
        ..SpecialTexts::default()
    };
    let template = ChatTemplate::new("minimind", source, special, TRAINING_DATE).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let tools = case.get("tools").filter(|tools| !tools.is_null()).cloned();
        let messages = case["messages"].as_array().unwrap().clone();
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let text = template.render(&Conversation { messages, tools }, prompt).unwrap();
        assert_eq!(text, case["rendered"].as_str().unwrap());
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(&text).unwrap(), ids);
    }
}

#[test]
fn both_forms_of_a_conversation_give_the_same_tokens() {
    let Some(data) = shared() else { return };
    for name in TOKENIZERS {
        let tokenizer = tokenizer(&data.join(name));
        let options = options(TemplateChoice::Auto);
        let reader = reader(&tokenizer, &options, 2048);
        let sharegpt = reader.read(&[data.join("instruct/sharegpt/oasst1_en.json")]).unwrap();
        let messages = reader.read(&[data.join("instruct/messages/oasst1_en.jsonl")]).unwrap();
        assert!(sharegpt == messages, "{name}: tokens differ");
        assert_eq!(
            sharegpt.len() + sharegpt.counts().dropped + sharegpt.counts().too_long,
            373,
            "{name}"
        );
    }
}

/// What is learned of a conversation is what the assistant says, to the letter, and the end of each turn.
#[test]
fn only_the_assistant_is_learned() {
    let Some(data) = shared() else { return };
    let file = data.join("instruct/messages/kto_mix_en.jsonl");
    let records = records(&file);
    // Byte-level tokenizers give back every text; the others change white space.
    for (name, template, ends) in [
        ("tokenizers/minimind-6400-bpe", TemplateChoice::Auto, ["<|im_end|>", "<|im_end|>"]),
        (
            "tokenizers/dolma2-100k-bpe",
            TemplateChoice::BuiltIn(BuiltIn::Alpaca),
            ["<|endoftext|>", "<|endoftext|>"],
        ),
        (
            "tokenizers/dolma2-100k-bpe",
            TemplateChoice::BuiltIn(BuiltIn::Chatml),
            ["<|im_end|>\n", "<|im_end|>\n<|endoftext|>"],
        ),
    ] {
        let tokenizer = tokenizer(&data.join(name));
        let options = options(template);
        let reader = reader(&tokenizer, &options, 1 << 20);
        let documents = reader.read(std::slice::from_ref(&file)).unwrap();
        assert_eq!((documents.len(), documents.counts().truncated), (110, 0), "{name}");
        for (document, record) in records.iter().enumerate() {
            let Record::Chat(talk) = record else { panic!("the record is a conversation") };
            let said = talk.messages.iter().filter(|m| m["role"] == "assistant");
            let mut said: Vec<&str> = said.map(|m| m["content"].as_str().unwrap()).collect();
            // minimind's template strips leading line breaks.
            said.iter_mut().for_each(|text| *text = text.trim_start_matches('\n'));
            let runs = learned(&documents, document);
            assert_eq!(runs.len(), said.len(), "{name} {document}");
            for (turn, (run, said)) in runs.iter().zip(&said).enumerate() {
                let end = ends[usize::from(turn + 1 == said.len() || turn + 1 == runs.len())];
                assert_eq!(tokenizer.decode(run).unwrap(), format!("{said}{end}"), "{name}");
            }
        }
    }
}

#[test]
fn every_instruct_file_becomes_tokens_with_every_template() {
    let Some(data) = shared() else { return };
    let tokenizer = tokenizer(&data.join("tokenizers/minimind-6400-bpe"));
    let built_in = BuiltIn::ALL.map(TemplateChoice::BuiltIn);
    for template in [TemplateChoice::Auto].into_iter().chain(built_in) {
        let options = options(template.clone());
        // All files with the model's template, one of each format with the others.
        let step = if template == TemplateChoice::Auto { 1 } else { 4 };
        for (name, count, _) in INSTRUCT.into_iter().skip(step / 4).step_by(step) {
            let reader = reader(&tokenizer, &options, 4096);
            let documents = reader.read(&[data.join("instruct").join(name)]).unwrap();
            assert_eq!(documents.counts().read, count, "{name} {template:?}");
            let left_out = documents.counts().dropped + documents.counts().too_long;
            assert_eq!(documents.len() + left_out, count, "{name} {template:?}");
            assert!(documents.len() * 10 > count * 9, "{name} {template:?}: {documents}");
            let target_tokens = documents.target_tokens();
            assert!(target_tokens > 0 && target_tokens < documents.tokens(), "{name}");
        }
    }
}

#[test]
fn calls_to_tools_reach_a_template_that_knows_them() {
    let Some(data) = shared() else { return };
    let tokenizer = tokenizer(&data.join("tokenizers/minimind-6400-bpe"));
    let options = options(TemplateChoice::Auto);
    let reader = reader(&tokenizer, &options, 1 << 20);
    let file = data.join("instruct/sharegpt/glaive_toolcall_en.json");
    let documents = reader.read(&[file]).unwrap();
    let text = tokenizer.decode(&documents.get(0).unwrap().ids().collect::<Vec<_>>()).unwrap();
    assert!(
        text.contains("# Tools") && text.contains("<tools>\n{\"type\": \"function\""),
        "{text}"
    );
    let said: Vec<String> =
        learned(&documents, 0).iter().map(|run| tokenizer.decode(run).unwrap()).collect();
    assert_eq!(
        said[0],
        "<tool_call>\n{\"name\": \"calculate_area\", \"arguments\": \
         {\"shape\": \"rectangle\", \"length\": 5, \"width\": 3}}\n</tool_call><|im_end|>"
    );
    assert!(text.contains("<tool_response>\n{\"area\": 15}\n</tool_response>"), "{text}");
}

/// The windows of the reference figures: 255 tokens after BOS, 255 targets.
#[test]
fn windows_are_those_of_the_reference_figures() {
    let Some(data) = shared() else { return };
    for name in ["models/stories260k", "models/tinystories-656k"] {
        let tokenizer = tokenizer(&data.join(name));
        let file = data.join("text/tinyshakespeare.txt");
        let ids = tokenizer.encode(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let options = options(TemplateChoice::Auto);
        let reader = reader(&tokenizer, &options, 255);
        let documents = reader.read(std::slice::from_ref(&file)).unwrap();
        let dataset = Dataset::new(documents, 255, true).unwrap();
        assert_eq!(dataset.sequences(), ids.len().div_ceil(255));
        let Batch { ids: got, targets, segments } = dataset.batch(&[0, 1]).unwrap();
        assert_eq!(segments, [0, 255, 510]);
        for window in 0..2 {
            let run = &ids[255 * window..255 * (window + 1)];
            assert_eq!(&targets[255 * window..255 * (window + 1)], run);
            assert_eq!(got[255 * window], tokenizer.bos().unwrap());
            assert_eq!(&got[255 * window + 1..255 * (window + 1)], &run[..254]);
        }
        let (head, tail) = reader.read_split(std::slice::from_ref(&file), 0.5).unwrap();
        assert!(head.len() > 64 && tail.len() > 64);
        let half = std::fs::read_to_string(&file).unwrap();
        let half = tokenizer.encode(&half[half.len() / 2..]).unwrap();
        assert_eq!(tail.get(0).unwrap().targets().collect::<Vec<_>>(), &half[..255]);
    }
}

#[test]
fn packed_rows_are_nearly_full_and_hold_every_document() {
    let Some(data) = shared() else { return };
    let tokenizer = tokenizer(&data.join("tokenizers/llama-32k-spm"));
    let options = options(TemplateChoice::BuiltIn(BuiltIn::Chatml));
    let reader = reader(&tokenizer, &options, 1024);
    let files = INSTRUCT.map(|(name, ..)| data.join("instruct").join(name));
    let documents = reader.read(&files).unwrap();
    let total = documents.tokens();
    let dataset = Dataset::new(documents, 1024, true).unwrap();
    assert!(dataset.sequences() * 1024 < total * 103 / 100, "{} sequences", dataset.sequences());
    let mut order = Order::at(dataset.shares(), 1, true, 0);
    let rows = order.take(dataset.sequences());
    let batches = rows.chunks(3).map(|rows| dataset.batch(rows));
    assert_eq!(batches.map(|batch| batch.unwrap().tokens()).sum::<usize>(), total);
}

/// Encoded data is found again as long as nothing that decides it has changed.
#[test]
fn encoded_data_is_kept() {
    let dir = qft_testing::material::stories260k();
    let tokenizer = tokenizer(&dir);
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("long.txt");
    let text = std::fs::read_to_string(qft_testing::material::tinyshakespeare()).unwrap();
    std::fs::write(&file, text.repeat(5)).unwrap();
    let args = CacheArgs { cache: Some(temp.path().join("cache")), ..Default::default() };
    let cache = Cache::of(&args.resolve().unwrap()).unwrap();
    let options = options(TemplateChoice::Auto);
    let told = Cell::new(false);
    let read = |seq_len, model_sha256| {
        told.set(false);
        let hears = |_| {
            told.set(true);
            Ok(())
        };
        let reader = reader(&tokenizer, &options, seq_len);
        let loader = Loader { reader, model_sha256, cache: cache.as_ref(), told: &hears };
        let read = loader.read_split(std::slice::from_ref(&file), 0.1).unwrap();
        (read, told.get())
    };
    let (first, encoded) = read(512, "a");
    assert!(encoded);
    let (again, encoded) = read(512, "a");
    assert!(!encoded && first == again);
    let documents = reader(&tokenizer, &options, 512).read_split(std::slice::from_ref(&file), 0.1);
    assert!(documents.unwrap() == again);
    let last = again.0.len() - 1;
    assert_eq!(first.0.get(last).unwrap(), again.0.get(last).unwrap());
    assert!(read(256, "a").1 && read(512, "b").1 && !read(512, "a").1);
    std::fs::write(&file, text.repeat(4)).unwrap();
    assert!(read(512, "a").1);
}
