//! Sets of questions: files of JSON lines, each a question that a model answers by which text it finds likeliest.

use crate::error::{Context, ErrorKind, OfKind, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The questions of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionSet {
    /// The file's name without its ending.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What its questions are like.
    pub form: Form,
    /// In the order of the file; at least one.
    pub questions: Vec<AskedQuestion>,
}

/// What the questions of a set are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Which of the choices follows? `query`, `choices`, `gold`: HellaSwag, PIQA, ARC.
    Choices,
    /// Behind which of the contexts does it follow? `context_options`, `continuation`, `gold`: WinoGrande.
    Contexts,
    /// Does it follow? `context`, `continuation`: LAMBADA.
    Continuation,
}

/// A question: its possible answers, and which is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedQuestion {
    /// Its line in the file, counted from 1.
    pub line: usize,
    /// The texts whose likelihoods are compared; one of [`Form::Continuation`], else two or more.
    pub answers: Vec<PossibleAnswer>,
    /// The right one of them, counted from 0.
    pub gold: usize,
}

/// A text that may follow another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PossibleAnswer {
    /// What is given; may be empty.
    pub context: String,
    /// What follows after a space; not empty.
    pub continuation: String,
}

impl Form {
    const ALL: [Self; 3] = [Self::Choices, Self::Contexts, Self::Continuation];

    /// The keys of a question.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Choices => &["query", "choices", "gold"],
            Self::Contexts => &["context_options", "continuation", "gold"],
            Self::Continuation => &["context", "continuation"],
        }
    }

    /// The form whose own key an object has.
    fn of(object: &Map<String, Value>) -> Option<Self> {
        Self::ALL.into_iter().find(|form| object.contains_key(form.keys()[0]))
    }

    fn shown(self) -> String {
        self.keys().iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
    }
}

impl QuestionSet {
    /// The sets in files and folders, with the first `limit` questions of each. Of a folder, the files `*.jsonl` are
    /// read whose first line is a question.
    ///
    /// Errors: a path that is not there, a file or a folder without questions, a line that is no question or not like
    /// those above it, two sets of one name. They name file, line and remedy.
    pub fn read_all(paths: &[PathBuf], limit: Option<usize>) -> Result<Vec<Self>> {
        Self::read_each(paths, limit).of_kind(ErrorKind::Data)
    }

    fn read_each(paths: &[PathBuf], limit: Option<usize>) -> Result<Vec<Self>> {
        let mut sets: Vec<Self> = Vec::new();
        for path in paths {
            let found = if path.is_dir() {
                folder(path, limit)?
            } else {
                vec![Self::parse(path, &text(path)?, limit)?]
            };
            for set in found {
                if let Some(other) = sets.iter().find(|other| other.name == set.name) {
                    bail!(
                        "--questions: {} and {} would both be called {}; give one of them, or rename a file",
                        other.path.display(),
                        set.path.display(),
                        set.name
                    );
                }
                sets.push(set);
            }
        }
        Ok(sets)
    }

    /// The questions in the text of a file.
    fn parse(path: &Path, text: &str, limit: Option<usize>) -> Result<Self> {
        let mut form = None;
        let mut questions = Vec::new();
        for (i, line) in lines(text).take(limit.unwrap_or(usize::MAX)) {
            let question = question(line, &mut form)
                .with_context(|| format!("{}, line {}", path.display(), i + 1))?;
            questions.push(AskedQuestion { line: i + 1, ..question });
        }
        let Some(form) = form else {
            bail!(
                "--questions: {} has no questions; give a file of JSON lines, each with the keys {}",
                path.display(),
                forms()
            );
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, path: path.to_owned(), form, questions })
    }
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "--questions: cannot read {}; give a file of JSON lines in UTF-8, or a folder of such files",
            path.display()
        )
    })
}

/// The sets in a folder, by name.
fn folder(dir: &Path, limit: Option<usize>) -> Result<Vec<QuestionSet>> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
    paths.sort();
    let mut sets = Vec::new();
    for path in &paths {
        let text = text(path)?;
        let first = lines(&text).next().and_then(|(_, line)| serde_json::from_str(line).ok());
        if first.as_ref().and_then(Form::of).is_some() {
            sets.push(QuestionSet::parse(path, &text, limit)?);
        }
    }
    ensure!(
        !sets.is_empty(),
        "--questions: {} has no file *.jsonl whose first line is a question; give a folder of JSON lines, each with the keys {}",
        dir.display(),
        forms()
    );
    Ok(sets)
}

/// The lines that are not blank, with their numbers from 0.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty())
}

/// The keys of every form.
fn forms() -> String {
    Form::ALL.map(Form::shown).join("; or ")
}

/// A line as a question of the set's form, which the first line decides.
fn question(line: &str, form: &mut Option<Form>) -> Result<AskedQuestion> {
    let value: Value = serde_json::from_str(line)
        .context("not JSON; every line must be a JSON object with a question")?;
    let Value::Object(object) = value else {
        bail!("not an object; every line must be a JSON object with a question");
    };
    let own = match Form::of(&object) {
        Some(own) => own,
        None => bail!(
            "no question: it has the keys {}; give {}",
            object.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
            forms()
        ),
    };
    let first = *form.get_or_insert(own);
    ensure!(
        own == first,
        "a question with {} in a set of questions with {}; put them into files of their own",
        own.shown(),
        first.shown()
    );
    let absent = own.keys().iter().find(|key| !object.contains_key(**key));
    if let Some(key) = absent {
        bail!("`{key}` is missing; such a question has {}", own.shown());
    }
    let pair = |context: String, continuation: String| PossibleAnswer { context, continuation };
    let answers: Vec<_> = match own {
        Form::Choices => {
            let query = string(&object, "query")?;
            strings(&object, "choices")?
                .into_iter()
                .map(|choice| pair(query.clone(), choice))
                .collect()
        }
        Form::Contexts => {
            let continuation = string(&object, "continuation")?;
            let contexts = strings(&object, "context_options")?.into_iter();
            contexts.map(|context| pair(context, continuation.clone())).collect()
        }
        Form::Continuation => {
            vec![pair(string(&object, "context")?, string(&object, "continuation")?)]
        }
    };
    if answers.iter().any(|answer| answer.continuation.trim().is_empty()) {
        let key = if own == Form::Choices { "choices" } else { "continuation" };
        bail!(
            "`{key}` has an empty text, which has no likelihood; give the text, or remove the line"
        );
    }
    let gold = if own == Form::Continuation { 0 } else { gold(&object, answers.len())? };
    Ok(AskedQuestion { line: 0, answers, gold })
}

/// Which answer is right.
fn gold(object: &Map<String, Value>, answers: usize) -> Result<usize> {
    let given = &object["gold"];
    let found = given.as_u64().and_then(|gold| usize::try_from(gold).ok());
    match found.filter(|gold| *gold < answers) {
        Some(gold) => Ok(gold),
        None => bail!(
            "`gold` is {given}, but there are {answers} answers, counted from 0; give a whole number from 0 to {}",
            answers - 1
        ),
    }
}

fn string(object: &Map<String, Value>, key: &str) -> Result<String> {
    match &object[key] {
        Value::String(text) => Ok(text.clone()),
        other => bail!("`{key}` is {}; give a text", kind(other)),
    }
}

/// At least two texts.
fn strings(object: &Map<String, Value>, key: &str) -> Result<Vec<String>> {
    let Value::Array(values) = &object[key] else {
        bail!("`{key}` is {}; give a list of texts", kind(&object[key]));
    };
    ensure!(
        values.len() > 1,
        "`{key}` has {} texts, between which nothing is to be chosen; give at least 2, or remove the line",
        values.len()
    );
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => bail!("`{key}` holds {}; give a list of texts", kind(other)),
    };
    values.iter().map(text).collect()
}

/// What a value is, in words.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<QuestionSet> {
        QuestionSet::parse(Path::new("sets/tiny.jsonl"), text, None)
    }

    #[test]
    fn every_form_is_read() {
        let text = "{\"query\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1, \"id\": 7}\n\n\
                    {\"query\": \"\", \"choices\": [\"b\", \"c\", \"d\"], \"gold\": 0}\n";
        let set = parse(text).unwrap();
        assert_eq!((&*set.name, set.form, set.questions.len()), ("tiny", Form::Choices, 2));
        let second = &set.questions[1];
        assert_eq!((second.line, second.gold, second.answers.len()), (3, 0, 3));
        assert_eq!((&*second.answers[2].context, &*second.answers[2].continuation), ("", "d"));
        let set =
            parse(r#"{"context_options": ["a", "b"], "continuation": "c", "gold": 1}"#).unwrap();
        assert_eq!((set.form, &*set.questions[0].answers[1].context), (Form::Contexts, "b"));
        let set = parse(r#"{"context": "a", "continuation": "c"}"#).unwrap();
        assert_eq!((set.form, set.questions[0].answers.len()), (Form::Continuation, 1));
    }

    #[test]
    fn wrong_lines_are_named_with_a_remedy() {
        let good = r#"{"query": "a", "choices": ["b", "c"], "gold": 1}"#;
        for (line, words) in [
            ("{", "not JSON; every line"),
            ("[1]", "not an object"),
            (r#"{"text": "a", "n": 1}"#, "it has the keys `text`, `n`; give `query`, `choices`"),
            (r#"{"query": "a", "gold": 0}"#, "`choices` is missing"),
            (r#"{"query": "a", "choices": ["b", "c"]}"#, "`gold` is missing"),
            (
                r#"{"query": 3, "choices": ["b", "c"], "gold": 0}"#,
                "`query` is a number; give a text",
            ),
            (r#"{"query": "a", "choices": "b", "gold": 0}"#, "`choices` is a text; give a list"),
            (r#"{"query": "a", "choices": [], "gold": 0}"#, "`choices` has 0 texts"),
            (r#"{"query": "a", "choices": ["b"], "gold": 0}"#, "give at least 2"),
            (r#"{"query": "a", "choices": ["b", null], "gold": 0}"#, "`choices` holds null"),
            (r#"{"query": "a", "choices": ["b", " "], "gold": 0}"#, "has an empty text"),
            (r#"{"query": "a", "choices": ["b", "c"], "gold": 2}"#, "`gold` is 2, but there are 2"),
            (r#"{"query": "a", "choices": ["b", "c"], "gold": -1}"#, "from 0 to 1"),
            (r#"{"query": "a", "choices": ["b", "c"], "gold": "1"}"#, "`gold` is \"1\""),
            (r#"{"context": "a", "continuation": "b"}"#, "put them into files of their own"),
        ] {
            let error = parse(&format!("{good}\n{line}\n")).unwrap_err();
            let told = format!("{error:#}");
            assert!(told.contains("tiny.jsonl, line 2: "), "{told}");
            assert!(told.contains(words), "{words}: {told}");
        }
        let told = parse("\n \n").unwrap_err().to_string();
        assert!(told.contains("tiny.jsonl has no questions"), "{told}");
    }

    #[test]
    fn folders_files_and_limits() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let line = "{\"context\": \"a\", \"continuation\": \"b\"}\n";
        std::fs::write(path("b.jsonl"), line.repeat(3)).unwrap();
        std::fs::write(path("a.jsonl"), line).unwrap();
        std::fs::write(path("chat.jsonl"), "{\"messages\": []}\n").unwrap();
        std::fs::write(path("notes.txt"), "none").unwrap();
        let read = |paths: &[PathBuf], limit| QuestionSet::read_all(paths, limit);
        let sets = read(&[folder.path().to_owned()], Some(2)).unwrap();
        let found: Vec<_> = sets.iter().map(|set| (&*set.name, set.questions.len())).collect();
        assert_eq!(found, [("a", 1), ("b", 2)]);
        for (paths, words) in [
            (vec![path("none.jsonl")], "cannot read"),
            (vec![path("chat.jsonl")], "line 1: no question"),
            (vec![path("a.jsonl"), folder.path().to_owned()], "would both be called a"),
        ] {
            let error = read(&paths, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
        std::fs::remove_file(path("a.jsonl")).unwrap();
        std::fs::remove_file(path("b.jsonl")).unwrap();
        let told = format!("{:#}", read(&[folder.path().to_owned()], None).unwrap_err());
        assert!(told.contains("has no file *.jsonl whose first line is a question"), "{told}");
    }
}
