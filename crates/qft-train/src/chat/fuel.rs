//! What a rendering may cost.
//!
//! Fuel: each step of a template takes one, and so does every 64th byte that it makes. A template that loops without
//! end, or doubles a text again and again, ends with an error and not with the machine's memory. What a conversation may cost
//! is counted, and not timed: whether it can be rendered does not depend on how busy a machine is.
//!
//! Stack: nested expressions take more than a thread has that nobody thought of. To start a thread for each conversation takes
//! longer than to render it, so threads that render many are started with the stack for it.

use super::Conversation;
use crate::error::{Context, Error, ErrorKind, Result};
use serde_json::Value;
use std::cell::Cell;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::Duration;

/// For any conversation: about a million steps, or 64 MiB.
const BASE: u64 = 1 << 20;

/// For each byte of a conversation: templates copy what is said a few times, and loop over the turns.
const PER_BYTE: u64 = 16;

/// What a value counts for beside its text.
const VALUE_BYTES: u64 = 16;

/// The most that a template is given, however long the conversation.
const MOST: u64 = 1 << 23;

/// For all renderings of a conversation, of which a turn takes a few: those of a thousand turns, each of fifty steps.
pub(super) const OF_ALL: u64 = if cfg!(test) { 1 << 25 } else { 1 << 29 };

/// Stack for a rendering: expressions, blocks and macros lie within each other up to a limit.
pub(super) const STACK: usize = 48 << 20;

/// Stack for anything.
const BASE_STACK: usize = 2 << 20;

/// When work on a thread of its own is given up: what its fuel pays for takes a tenth of it on a slow machine.
const MOST_TIME: Duration = Duration::from_secs(600);

thread_local! {
    /// Whether this thread has the stack for a rendering.
    static HAS_STACK: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread has the stack for a rendering.
pub(super) fn has_stack() -> bool {
    HAS_STACK.get()
}

/// Starts a thread with the stack for renderings, so that they need none of their own.
///
/// Errors: there is no thread to be had.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().stack_size(STACK + BASE_STACK).spawn_scoped(scope, || {
        HAS_STACK.set(true);
        work()
    })
}

/// The fuel for a conversation.
pub(super) fn of(talk: &Conversation) -> u64 {
    let bytes: u64 = talk.messages.iter().chain(&talk.tools).map(size).sum();
    let fuel = BASE.saturating_add(bytes.saturating_mul(PER_BYTE)).min(MOST);
    // In whole multiples: short conversations, which nearly all are, have the same.
    fuel.next_multiple_of(BASE)
}

/// Runs `work` on a stack of `stack` bytes and what anything needs, and waits for it for a limited time. Beyond that
/// its thread goes on alone; the caller should end the process.
///
/// Errors: those of `work`; it takes too long; there is no thread to be had.
pub(super) fn run<T: Send + 'static>(
    name: &str,
    stack: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let stack = stack.saturating_add(BASE_STACK);
    let (send, receive) = channel();
    let thread = Builder::new().name("chat template".into()).stack_size(stack).spawn(move || {
        // Nobody may wait any more.
        let _ = send.send(work());
    });
    let thread = thread.context("cannot start a thread for a chat template")?;
    match receive.recv_timeout(MOST_TIME) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(too_long(name)),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => Err(too_long(name)),
        },
    }
}

/// The error of a template that has used up what it may.
pub(super) fn too_long(name: &str) -> Error {
    let what = format!(
        "chat template {name}: takes too long, or writes too much, for a conversation of this length; choose another \
         with --template (such as chatml)"
    );
    Error::new(ErrorKind::Other, what)
}

/// About the bytes of a value.
fn size(value: &Value) -> u64 {
    let inner: u64 = match value {
        Value::String(text) => text.len() as u64,
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| name.len() as u64 + size(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    inner + VALUE_BYTES
}
