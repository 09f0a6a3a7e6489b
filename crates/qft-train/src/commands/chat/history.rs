//! The turns of a talk, and the file that keeps them: a record with `messages` on each line, the last of which goes on.

use super::message;
use crate::data::Record;
use crate::data::records::detect;
use crate::error::{Context, ErrorKind, OfKind, Result, bail};
use qft_files::{AtomicFile, Disk};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// A talk.
#[derive(Debug, Default)]
pub(super) struct History {
    path: Option<PathBuf>,
    /// Lines of earlier talks, as they are.
    earlier: Vec<String>,
    messages: Vec<Value>,
    /// What else the record of the talk holds.
    beside: Map<String, Value>,
}

impl History {
    /// The talk that a file ends with, or a new one if there is no file yet.
    ///
    /// Errors: the file cannot be read, or its last line is not a conversation.
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let place = || format!("--history {}", path.display());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(place),
        };
        let mut earlier: Vec<_> =
            text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        let (messages, beside) = match earlier.pop() {
            Some(line) => talk(&line).with_context(place)?,
            None => Default::default(),
        };
        Ok(Self { path: Some(path.into()), earlier, messages, beside })
    }

    pub(super) fn messages(&self) -> &[Value] {
        &self.messages
    }

    pub(super) fn set_messages(&mut self, messages: Vec<Value>) {
        self.messages = messages;
    }

    pub(super) fn push(&mut self, role: &str, content: &str) {
        self.messages.push(message(role, content));
    }

    /// One that was cut off is not to be learned: its end is none.
    pub(super) fn push_answer(&mut self, content: &str, whole: bool) {
        let mut answer = message("assistant", content);
        if !whole {
            answer["weight"] = json!(0);
        }
        self.messages.push(answer);
    }

    /// Begins a new talk under the same instructions; the old one stays in the file.
    pub(super) fn reset(&mut self) {
        let system = self.system().cloned();
        if self.messages.len() > usize::from(system.is_some()) {
            self.earlier.push(self.line());
            self.beside.clear();
        }
        self.messages = system.into_iter().collect();
    }

    fn system(&self) -> Option<&Value> {
        self.messages.first().filter(|first| first["role"] == "system")
    }

    /// Tells the model how to be; an empty text takes that back.
    pub(super) fn set_system(&mut self, text: &str) {
        if self.system().is_some() {
            self.messages.remove(0);
        }
        if !text.is_empty() {
            self.messages.insert(0, message("system", text));
        }
    }

    /// Takes the last answer away; whether there was one.
    pub(super) fn take_answer(&mut self) -> bool {
        self.messages.pop_if(|last| last["role"] == "assistant").is_some()
    }

    /// Takes the last answer and what it was to away; whether there was one.
    pub(super) fn take_exchange(&mut self) -> bool {
        let taken = self.take_answer();
        self.messages.pop_if(|last| taken && last["role"] == "user");
        taken
    }

    /// The record of the talk.
    fn line(&self) -> String {
        let mut record = Map::from_iter([("messages".to_owned(), json!(self.messages))]);
        record.extend(self.beside.clone());
        Value::Object(record).to_string()
    }

    /// Writes the file, whole, if there is one.
    ///
    /// Errors: it cannot be written.
    pub(super) fn save(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let lines = self.earlier.iter().cloned().chain([self.line()]);
        let text: String = lines.map(|line| line + "\n").collect();
        let written = AtomicFile::write_whole(&Disk::default(), path, text.as_bytes());
        let place = || format!("--history: cannot write {}", path.display());
        written.with_context(place).of_kind(ErrorKind::Output)
    }
}

/// The messages of a record, whatever its format, and its fields that are no part of the talk.
fn talk(line: &str) -> Result<(Vec<Value>, Map<String, Value>)> {
    let value: Value = serde_json::from_str(line).context("the last line is not JSON")?;
    let format = detect(&value)?;
    let mut beside = value.as_object().cloned().unwrap_or_default();
    beside.retain(|name, _| {
        !["messages", "conversations", "system", "tools"].contains(&name.as_str())
    });
    match Record::from_json(value, format)? {
        Record::Chat(talk) if talk.tools.is_none() => Ok((talk.messages, beside)),
        Record::Chat(_) => bail!("the last line is a talk with tools, which cannot be called here"),
        _ => {
            bail!("the last line is not a conversation; give a file with `messages`, or a new one")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(history: &History) -> Vec<&str> {
        history.messages().iter().map(|m| m["role"].as_str().unwrap()).collect()
    }

    #[test]
    fn talks_are_lines_and_the_last_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("talks.jsonl");
        let mut history = History::open(Some(&path)).unwrap();
        history.set_system("Be brief.");
        history.push("user", "Hello");
        history.push("assistant", "Hi");
        history.save().unwrap();
        history.reset();
        history.reset();
        assert_eq!(roles(&history), ["system"]);
        history.push("user", "Who?");
        history.push("assistant", "Me");
        history.save().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);

        let mut history = History::open(Some(&path)).unwrap();
        assert_eq!(history.messages()[2]["content"], "Me");
        assert!(history.take_answer() && !history.take_answer());
        history.push("assistant", "You");
        assert!(history.take_exchange() && !history.take_exchange());
        history.set_system("");
        assert_eq!(roles(&history), [""; 0]);
        history.push_answer("Me", true);
        history.push_answer("Y", false);
        assert!(history.messages()[0].get("weight").is_none());
        assert_eq!(history.messages()[1]["weight"], 0);
        assert!(history.take_answer() && history.take_answer());
        history.save().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(r#"{"messages":[{"role":"system","content":"Be brief."}"#));
    }

    #[test]
    fn what_a_record_holds_beside_its_talk_stays() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("talks.jsonl");
        let record =
            r#"{"id": 7, "messages": [{"role": "user", "content": "a"}], "tag": {"b": [1]}}"#;
        std::fs::write(&path, record).unwrap();
        let mut history = History::open(Some(&path)).unwrap();
        history.push("assistant", "c");
        history.save().unwrap();
        let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((&line["id"], &line["tag"]), (&json!(7), &json!({"b": [1]})));
        assert_eq!(line["messages"][1]["content"], "c");
        history.reset();
        history.push("user", "d");
        history.save().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let [first, second] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(first.contains("\"id\"") && !second.contains("\"id\""), "{text}");
    }

    #[test]
    fn other_files_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        for (text, told) in [
            ("not JSON", "not JSON"),
            (r#"{"text": "a"}"#, "not a conversation"),
            (r#"{"messages": [{"role": "dog", "content": "x"}]}"#, "dog"),
            (
                r#"{"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f"}]}"#,
                "tools",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", History::open(Some(&path)).unwrap_err());
            assert!(error.contains(told) && error.contains("--history"), "{error}");
        }
        assert!(History::open(Some(temp.path())).is_err());
    }
}
