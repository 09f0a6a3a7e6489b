//! Which files of a model's repository are needed.

use crate::listing::Listing;

/// The weights in one file.
pub(crate) const SINGLE: &str = "model.safetensors";

/// The names of the files of weights.
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// What every model has.
pub(crate) const CONFIG: &str = "config.json";

/// What every tokenizer has.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// Files besides weights that make a model usable, where there are any.
const SMALL: [&str; 10] = [
    CONFIG,
    TOKENIZER,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
];

/// A folder of chat templates for other occasions.
const TEMPLATES: &str = "additional_chat_templates/";

/// Beginnings of the names of licences.
const LICENCES: [&str; 5] = ["license", "licence", "notice", "use_policy", "copying"];

/// Weights of other kinds: the ending, and what it is called.
const OTHER: [(&str, &str); 7] = [
    (".gguf", "GGUF files"),
    ("adapter_model.safetensors", "an adapter"),
    ("consolidated.safetensors", "weights in Mistral's own format"),
    (".bin", "weights in .bin files"),
    (".pth", "weights in .pth files"),
    (".onnx", "ONNX files"),
    (".safetensors", "safetensors files of other names"),
];

/// The files besides weights that are fetched.
pub(crate) fn small_files(listing: &Listing) -> Vec<&str> {
    let wanted = |path: &&str| {
        let name = path.to_lowercase();
        let licence = !name.contains('/') && LICENCES.iter().any(|start| name.starts_with(start));
        let template = path.starts_with(TEMPLATES) && path.ends_with(".jinja");
        SMALL.contains(path) || licence || template
    };
    listing.paths().into_iter().filter(wanted).collect()
}

/// What a repository has instead of a model in safetensors files, in words.
pub(crate) fn found_instead(listing: &Listing) -> String {
    let paths = listing.paths();
    let has = |ending: &str| paths.iter().any(|path| path.ends_with(ending));
    let kinds: Vec<_> = OTHER.iter().filter(|(end, _)| has(end)).map(|(_, kind)| *kind).collect();
    match kinds.as_slice() {
        [] if paths.is_empty() => "no files".into(),
        [] => format!("{} files, none of them weights", paths.len()),
        kinds => kinds.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::FileFacts;

    fn listing(paths: &[&str]) -> Listing {
        let files = paths.iter().map(|path| ((*path).to_owned(), FileFacts::default())).collect();
        Listing { commit: "c".repeat(40), files }
    }

    #[test]
    fn only_what_is_needed() {
        let all = listing(&[
            ".gitattributes",
            "LICENSE",
            "LICENSE.txt",
            "README.md",
            "USE_POLICY.md",
            "additional_chat_templates/tool_use.jinja",
            "config.json",
            "onnx/config.json",
            "original/params.json",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer.model",
        ]);
        assert_eq!(
            small_files(&all),
            [
                "LICENSE",
                "LICENSE.txt",
                "USE_POLICY.md",
                "additional_chat_templates/tool_use.jinja",
                "config.json",
                "tokenizer.json",
                "tokenizer.model",
            ]
        );
        assert_eq!(found_instead(&all), "weights in .bin files");
        assert_eq!(found_instead(&listing(&["a.Q4.gguf", "README.md"])), "GGUF files");
        assert_eq!(found_instead(&listing(&["README.md"])), "1 files, none of them weights");
        assert_eq!(found_instead(&listing(&[])), "no files");
    }
}
