//! What can be typed beside what is said to the model.

/// What `/help` shows.
pub(super) const HELP: &str = "\
/reset          begin a new talk
/system TEXT    tell the model how to be, from now on; without a text nothing
/retry          let it answer again
/undo           take the last exchange back
/exit           leave, as Ctrl-D does
A line that ends in \\ goes on in the next one. A line that begins with // is
said with one / less.";

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// To say this to the model.
    Say(String),
    Reset,
    System(String),
    Retry,
    Undo,
    Help,
    Exit,
    /// Something that there is not, by its name.
    Unknown(String),
}

impl Request {
    pub(super) fn of(line: &str) -> Self {
        let Some(command) = line.strip_prefix('/') else { return Self::Say(line.into()) };
        if command.starts_with('/') {
            return Self::Say(command.into());
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, rest.trim()) {
            ("system", text) => Self::System(text.into()),
            ("reset", "") => Self::Reset,
            ("retry", "") => Self::Retry,
            ("undo", "") => Self::Undo,
            ("help", "") => Self::Help,
            ("exit" | "quit" | "bye", "") => Self::Exit,
            _ => Self::Unknown(format!("/{command}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_requests() {
        for (line, request) in [
            ("Hello /there", Request::Say("Hello /there".into())),
            ("//reset it", Request::Say("/reset it".into())),
            ("/reset", Request::Reset),
            ("/system  Be brief. ", Request::System("Be brief.".into())),
            ("/system", Request::System(String::new())),
            ("/quit", Request::Exit),
            ("/retry", Request::Retry),
            ("/usr/bin is what?", Request::Unknown("/usr/bin is what?".into())),
            ("/reset now", Request::Unknown("/reset now".into())),
        ] {
            assert_eq!(Request::of(line), request);
        }
        for name in ["/reset", "/system", "/retry", "/undo", "/exit"] {
            assert!(HELP.contains(name) && !matches!(Request::of(name), Request::Unknown(_)));
        }
    }
}
