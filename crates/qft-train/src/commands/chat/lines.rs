//! What is typed, line by line: with a line editor on a terminal, as it comes elsewhere.

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, BufRead, IsTerminal};

/// Where lines come from.
pub(super) enum Lines {
    Terminal(Box<DefaultEditor>),
    Stream(io::StdinLock<'static>),
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line with something on it, or several of which each but the last ended in a backslash.
    Text(String),
    /// An empty line, or one that was given up.
    Nothing,
    /// There is no more.
    End,
}

impl Lines {
    /// Errors: the terminal cannot be set up.
    pub(super) fn new() -> io::Result<Self> {
        let stdin = io::stdin();
        match stdin.is_terminal() {
            true => DefaultEditor::new().map(|e| Self::Terminal(Box::new(e))).map_err(io_error),
            false => Ok(Self::Stream(stdin.lock())),
        }
    }

    /// Whether somebody types.
    pub(super) fn is_interactive(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line, with those that it goes on in.
    ///
    /// Errors: it cannot be read, or is not UTF-8.
    pub(super) fn next(&mut self) -> io::Result<Line> {
        let mut text = String::new();
        loop {
            let Some(line) = self.one(if text.is_empty() { "> " } else { "… " })? else {
                return Ok(if text.is_empty() { Line::End } else { Line::Text(text) });
            };
            let Some(line) = line else { return Ok(Line::Nothing) };
            match line.strip_suffix('\\') {
                Some(begun) => text = text + begun + "\n",
                None => {
                    text += &line;
                    break;
                }
            }
        }
        if text.trim().is_empty() {
            return Ok(Line::Nothing);
        }
        if let Self::Terminal(editor) = self {
            // It is only for the arrow keys.
            let _ = editor.add_history_entry(&text);
        }
        Ok(Line::Text(text))
    }

    /// One line; inner none if it was given up, outer none at the end.
    fn one(&mut self, prompt: &str) -> io::Result<Option<Option<String>>> {
        match self {
            Self::Terminal(editor) => match editor.readline(prompt) {
                Ok(line) => Ok(Some(Some(line))),
                Err(ReadlineError::Interrupted) => Ok(Some(None)),
                Err(ReadlineError::Eof) => Ok(None),
                Err(error) => Err(io_error(error)),
            },
            Self::Stream(stream) => {
                let mut line = String::new();
                if stream.read_line(&mut line)? == 0 {
                    return Ok(None);
                }
                Ok(Some(Some(line.trim_end_matches(['\r', '\n']).into())))
            }
        }
    }
}

fn io_error(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::Io(error) => error,
        error => io::Error::other(error),
    }
}
