//! The file that Ollama imports a GGUF file with.

use crate::tokenizer::Tokenizer;
use std::fmt::Write;

/// Names the weights in `file`, and what ends an answer. Ollama takes the chat template from the weights' file.
pub(super) fn text(file: &str, tokenizer: &Tokenizer) -> String {
    let mut text = format!("FROM ./{file}\n");
    for end in tokenizer.eos().iter().filter_map(|&id| tokenizer.token(id)) {
        let quoted = end.replace('\\', "\\\\").replace('"', "\\\"");
        let _written = writeln!(text, "PARAMETER stop \"{quoted}\"");
    }
    text
}
