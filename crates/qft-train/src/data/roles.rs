//! Who speaks in a message, in all the spellings that data has.

use crate::error::{Result, bail};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    User,
    Assistant,
    /// The assistant, by a call whose text is the message.
    Call,
    Tool,
}

impl Role {
    /// By one of its names.
    ///
    /// Errors: it is no known name.
    pub(super) fn read(name: &str) -> Result<Self> {
        Ok(match name.trim().to_lowercase().as_str() {
            "system" | "developer" => Self::System,
            "user" | "human" | "prompter" => Self::User,
            "assistant" | "gpt" | "model" | "bot" | "ai" | "chatgpt" | "bing" | "bard" => {
                Self::Assistant
            }
            "function_call" | "tool_call" => Self::Call,
            "tool" | "function" | "observation" | "function_response" | "tool_response"
            | "ipython" => Self::Tool,
            _ => bail!(
                "`{name}` is not a known role; known are system, user, assistant and tool, their names in ShareGPT \
                 files (human, gpt, function_call, observation), and developer, model, bot and function"
            ),
        })
    }

    /// The name that templates know.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant | Self::Call => "assistant",
            Self::Tool => "tool",
        }
    }
}
