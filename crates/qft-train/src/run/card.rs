//! A model's card: what it was made from and how, for people who find it later.

use super::output::{SUMMARY_FILE, checkpoints};
use super::summary::Summary;
use crate::step::checkpoint;
use qft_files::Sha256;
use qft_hub::Origin;
use qft_llama::export::CARD_MARK;
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// The card of what a run saves, trained from the model in `base` by `recipe`.
pub(super) fn of_run(base: &Path, recipe: &Value, summary: &Summary) -> String {
    let folder = base.file_name().unwrap_or_default().to_string_lossy();
    let named = summary.origins.model.as_ref().map(|origin| origin.repository.clone());
    let hub = named.or_else(|| hub_name(base));
    let name = hub.as_deref().unwrap_or(&folder);
    text(&format!("{name}, fine-tuned"), Some(name), hub.as_deref(), (Some(recipe), Some(summary)))
}

/// The card of the model in `dir`, which came from `origin` if it was named: of the run whose summary lies beside it, if there
/// was one.
pub fn of_folder(dir: &Path, origin: Option<&Origin>) -> String {
    let summary = std::fs::read_to_string(dir.join(SUMMARY_FILE)).ok();
    let summary: Option<Summary> = summary.and_then(|text| serde_json::from_str(&text).ok());
    let latest = checkpoint::latest(&checkpoints(dir)).ok().flatten();
    let recipe = latest.and_then(|dir| Some(checkpoint::read_progress(&dir).ok()?.recipe));
    let folder = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let folder = folder.file_name().unwrap_or_default().to_string_lossy();
    let hub = origin.map(|origin| origin.repository.clone()).or_else(|| hub_name(dir));
    let folder = origin.map_or(folder.into_owned(), |origin| origin.repository.clone());
    text(&folder, hub.as_deref(), hub.as_deref(), (recipe.as_ref(), summary.as_ref()))
}

/// The name that the model has on a hub, as transformers notes it in `config.json`.
fn hub_name(dir: &Path) -> Option<String> {
    let config = std::fs::read_to_string(dir.join("config.json")).ok()?;
    let config: Value = serde_json::from_str(&config).ok()?;
    let name = config.get("_name_or_path")?.as_str()?;
    let plain = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    let (owner, model) = name.split_once('/')?;
    (plain(owner) && plain(model)).then(|| name.to_owned())
}

/// The card of a model with this `title`, made from `base`, which has the name `hub` on a hub, by a recipe, with a summary.
fn text(
    title: &str,
    base: Option<&str>,
    hub: Option<&str>,
    (recipe, summary): (Option<&Value>, Option<&Summary>),
) -> String {
    // A String takes everything.
    let mut out = String::from("---\nlibrary_name: transformers\npipeline_tag: text-generation\n");
    if let Some(hub) = hub {
        let _ = writeln!(out, "base_model: {hub}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let tool = format!("[qft]({}) {version}", env!("CARGO_PKG_REPOSITORY"));
    let _ = writeln!(out, "tags:\n- qft\n---\n\n# {title}\n");
    if recipe.is_none() && summary.is_none() {
        let _ = writeln!(out, "Exported with {tool}.\n\n{CARD_MARK}");
        return out;
    }
    let of = base.map_or(String::new(), |base| format!(" of `{base}`"));
    let _ = writeln!(out, "All parameters{of} were fine-tuned with {tool}.\n");
    out.push_str("| | |\n|---|---|\n");
    let mut row = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(out, "| {what} | {value} |");
        }
    };
    if let Some(summary) = summary {
        let at = |origin: &Origin| format!("`{}@{}`", origin.repository, origin.commit);
        let named = &summary.origins;
        row("`--model`", named.model.as_ref().map(at));
        for origin in &named.data {
            row("`--data`", Some(at(origin)));
        }
        let saved = summary.best.map_or(summary.steps, |best| u64::from(best.step));
        row("steps", Some(saved.to_string()));
        row("tokens learned", Some(summary.tokens.to_string()));
    }
    if let Some(recipe) = recipe {
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let option = |key: &str| recipe.get(key).filter(|value| !value.is_null()).map(plain);
        for key in ["states", "optimizer", "lr", "schedule", "seed", "seq-len"] {
            row(&format!("`--{key}`"), option(key));
        }
        for (key, what) in [("data", "training data"), ("eval-data", "held-out data")] {
            row(what, recipe.get(key).and_then(data));
        }
        let mut hash = Sha256::new();
        hash.update(recipe.to_string().as_bytes());
        row("recipe, SHA-256", Some(format!("`{}`", hash.hex())));
    }
    if let Some(summary) = summary {
        let loss = |loss: Option<f64>| loss.map(|loss| format!("{loss:.4}"));
        row("held-out loss before", loss(summary.initial_eval_loss));
        row("held-out loss after", loss(summary.final_eval_loss));
        let saved = summary.saved_eval.and_then(|saved| saved.saved_eval_loss);
        row("held-out loss of these files, in float compute", loss(saved));
    }
    let _ = writeln!(out, "\n{CARD_MARK}");
    out
}

/// Data, as the recipe knows it.
fn data(data: &Value) -> Option<String> {
    let number = |key: &str| data.get(key)?.as_u64();
    Some(format!(
        "{} documents, {} tokens, SHA-256 of the tokens `{}`",
        number("documents")?,
        number("tokens")?,
        data.get("sha256")?.as_str()?
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_card_says_what_is_known_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let bare = of_folder(dir.path(), None);
        assert!(bare.contains("Exported with") && !bare.contains("fine-tuned"), "{bare}");
        assert!(bare.trim_end().ends_with(CARD_MARK), "{bare}");
        for (name, expected) in
            [("org/model-1.7B", true), ("/home/me/model", false), ("../x", false)]
        {
            let config = json!({"_name_or_path": name}).to_string();
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            let text = of_folder(dir.path(), None);
            assert_eq!(text.contains(&format!("base_model: {name}\n")), expected, "{text}");
            assert_eq!(text.contains(name), expected, "{text}");
        }
        let origin = Origin {
            kind: qft_hub::Kind::Model,
            repository: "org/named".into(),
            revision: "main".into(),
            commit: "c0".repeat(20),
        };
        let named = of_folder(dir.path(), Some(&origin));
        assert!(
            named.contains("# org/named\n") && named.contains("base_model: org/named\n"),
            "{named}"
        );
        let recipe = json!({
            "states": "full", "lr": 0.25, "max-grad-norm": null, "eval-data": null,
            "data": {"documents": 3, "tokens": 70, "learned": 60, "sha256": "abc"},
        });
        let text = text("mine", None, None, (Some(&recipe), None));
        for part in
            ["| `--states` | full |", "| `--lr` | 0.25 |", "3 documents, 70 tokens", "`abc`"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("held-out") && !text.contains("null"), "{text}");
    }
}
