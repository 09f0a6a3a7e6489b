//! How data is read and laid out.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How data is read, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ReadingArgs {
    /// Format of the data [default: auto]
    #[arg(long, value_enum, help_heading = "Data")]
    pub format: Option<DataFormat>,
    /// Chat template: auto, model, alpaca, chatml, llama2, llama3, none, or a Jinja file [default: auto: the
    /// model's own, or else alpaca for instructions, and for conversations chatml where the vocabulary has its marks]
    #[arg(long, value_name = "NAME|FILE", help_heading = "Data")]
    pub template: Option<TemplateChoice>,
    /// Tokens that count in the loss [default: completion]
    #[arg(long, value_enum, help_heading = "Data")]
    pub train_on: Option<TrainOn>,
    /// Read a field from a column of another name, as prompt=question; may be given more than once
    #[arg(long, value_name = "FIELD=COLUMN", help_heading = "Data")]
    pub field: Vec<FieldName>,
    /// What to do with a record that cannot be read [default: error]
    #[arg(long, value_enum, help_heading = "Data")]
    pub on_bad_record: Option<OnBadRecord>,
    /// What to do with a record of more than --seq-len tokens [default: drop for conversations and completions, split
    /// for texts]
    #[arg(long, value_enum, help_heading = "Data")]
    pub too_long: Option<TooLong>,
}

/// How training data is laid out, as given.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LayoutArgs {
    /// Put several short documents into one sequence; they do not attend to each other
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Data"
    )]
    pub pack: Option<bool>,
    /// Take the sequences in random order [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Data"
    )]
    pub shuffle: Option<bool>,
    /// Take the sequences in the order of the data
    #[arg(long, conflicts_with = "shuffle", help_heading = "Data")]
    #[serde(skip)]
    pub no_shuffle: bool,
}

/// How data is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadingOptions {
    /// Format of the records.
    pub format: DataFormat,
    /// How conversations become text.
    pub template: TemplateChoice,
    /// Tokens that count in the loss.
    pub train_on: TrainOn,
    /// Columns of other names.
    pub fields: Vec<FieldName>,
    /// What becomes of records that cannot be read.
    pub on_bad_record: OnBadRecord,
    /// What becomes of records that are too long; absent where it depends on what they are.
    pub too_long: Option<TooLong>,
}

/// How training data is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayoutOptions {
    /// Whether short documents share sequences.
    pub pack: bool,
    /// Whether sequences come in a random order.
    pub shuffle: bool,
}

impl ReadingArgs {
    /// Fills in the defaults.
    pub fn resolve(self) -> ReadingOptions {
        ReadingOptions {
            format: self.format.unwrap_or_default(),
            template: self.template.unwrap_or_default(),
            train_on: self.train_on.unwrap_or_default(),
            fields: self.field,
            on_bad_record: self.on_bad_record.unwrap_or_default(),
            too_long: self.too_long,
        }
    }
}

impl LayoutArgs {
    /// Fills in the defaults.
    pub fn resolve(self) -> LayoutOptions {
        LayoutOptions {
            pack: self.pack.unwrap_or(false),
            shuffle: !self.no_shuffle && self.shuffle.unwrap_or(true),
        }
    }
}

/// What the records of a data file look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// Text or records by what the file holds, the format of records by the fields of the first one.
    #[default]
    Auto,
    /// Plain text: one long document.
    Text,
    /// Records with `text`, each a document.
    JsonlText,
    /// Records with `prompt` and `completion`.
    PromptCompletion,
    /// Records with `instruction`, `input` and `output`.
    Alpaca,
    /// Records with `conversations`, a list of `from` and `value`.
    Sharegpt,
    /// Records with `messages`, a list of `role` and `content`.
    Messages,
}

impl fmt::Display for DataFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Which tokens count in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// Completions and the assistant's turns, each with the token that ends it.
    #[default]
    Completion,
    /// The same, each of the assistant's turns in a sample of its own, with the prompt that the model will see then.
    Turns,
    /// The last of the assistant's turns, with the prompt that the model will see then.
    Last,
    /// All tokens.
    All,
}

/// What becomes of a record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRecord {
    /// It is an error.
    #[default]
    Error,
    /// It is left out, and counted.
    Skip,
}

/// What becomes of a record that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// It is left out, and counted.
    Drop,
    /// Its end is cut off. A model that sees many answers without their ends learns not to end.
    Cut,
    /// It becomes several documents, which do not see each other.
    Split,
}

/// The fields of records that can have columns of other names.
pub const FIELDS: [&str; 11] = [
    "text",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "system",
    "history",
    "conversations",
    "messages",
    "tools",
];

/// A field of a record, and the column that it is read from: `prompt=question`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName {
    /// One of [`FIELDS`].
    pub field: String,
    /// The name in the data.
    pub column: String,
}

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = FIELDS.join(", ");
        let Some((field, column)) = text.split_once('=').filter(|(_, column)| !column.is_empty())
        else {
            return Err(format!("expected FIELD=COLUMN with one of the fields {names}"));
        };
        if !FIELDS.contains(&field) {
            return Err(format!("`{field}` is no field that is read; give one of {names}"));
        }
        Ok(Self { field: field.into(), column: column.into() })
    }
}

impl TryFrom<String> for FieldName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FieldName> for String {
    fn from(name: FieldName) -> String {
        format!("{}={}", name.field, name.column)
    }
}

/// How conversations become text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TemplateChoice {
    /// The model's own; without one, `alpaca` for instructions, and for conversations `chatml` where the vocabulary
    /// has its marks, else `alpaca`. Prompts and completions are left as they are.
    #[default]
    Auto,
    /// The model's own; an error without one.
    Model,
    /// One of those that are built in, by name.
    BuiltIn(BuiltIn),
    /// A Jinja file.
    File(PathBuf),
}

/// The templates that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BuiltIn {
    /// Stanford Alpaca's instruction prompt.
    Alpaca,
    /// ChatML.
    Chatml,
    /// LLaMA 2 chat.
    Llama2,
    /// LLaMA 3 instruct.
    Llama3,
    /// No markers: the texts, a line apart.
    None,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Alpaca, Self::Chatml, Self::Llama2, Self::Llama3, Self::None];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpaca => "alpaca",
            Self::Chatml => "chatml",
            Self::Llama2 => "llama2",
            Self::Llama3 => "llama3",
            Self::None => "none",
        }
    }
}

impl From<String> for TemplateChoice {
    fn from(text: String) -> Self {
        match BuiltIn::ALL.into_iter().find(|template| template.name() == text) {
            Some(template) => Self::BuiltIn(template),
            None if text == "model" => Self::Model,
            None if text == "auto" => Self::Auto,
            None => Self::File(text.into()),
        }
    }
}

impl From<TemplateChoice> for String {
    fn from(choice: TemplateChoice) -> String {
        match choice {
            TemplateChoice::Auto => "auto".into(),
            TemplateChoice::Model => "model".into(),
            TemplateChoice::BuiltIn(template) => template.name().into(),
            TemplateChoice::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl FromStr for TemplateChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_by_name() {
        let name: FieldName = "prompt=my=question".parse().unwrap();
        assert_eq!((name.field.as_str(), name.column.as_str()), ("prompt", "my=question"));
        assert_eq!(String::from(name), "prompt=my=question");
        for wrong in ["prompt", "prompt=", "question=prompt"] {
            let error = FieldName::from_str(wrong).unwrap_err();
            assert!(error.contains("completion"), "{error}");
        }
    }

    #[test]
    fn templates_by_name() {
        for name in ["auto", "model", "alpaca", "none", "my/file.jinja"] {
            assert_eq!(String::from(TemplateChoice::from(name.to_string())), name);
        }
    }
}
