//! What `--help` says below the options: examples that work as they stand, but for the names of files.

/// Below the list of commands.
pub(super) const PROGRAM: &str = "\
Exit codes:
  0       done
  1       failed: the last line on standard error says why, and what to do
  2       the command line or an option is wrong; nothing was begun
  128+N   stopped by signal N (130: Ctrl-C), with a checkpoint to resume from

Results go to standard output, everything else to standard error. NO_COLOR,
CLICOLOR and CLICOLOR_FORCE are obeyed. `qft COMMAND --help` has the options
and examples of a command.";

/// Below the options of `finetune`.
pub(super) const FINETUNE: &str = "\
Examples:
  Fine-tune on chats, with the last 5 % held out:
    qft finetune --model llama --data chat.jsonl --val-split 0.05 --out tuned --lr 1e-5
  A model and data of the Hugging Face hub, by name:
    qft finetune --model HuggingFaceTB/SmolLM2-135M --data tatsu-lab/alpaca --out tuned
  With the options of a file, some of them changed:
    qft finetune --config run.toml --lr 2e-5
  See what is asked for, all defaults included, as such a file:
    qft finetune --config run.toml --lr 2e-5 --print-config
  Go on with a run that was stopped:
    qft finetune --config run.toml --resume latest";

/// Below the options of `eval`.
pub(super) const EVAL: &str = "\
Examples:
  The loss of held-out data:
    qft eval --model tuned --data held_out.jsonl
  Base against tuned, by loss and by every set of questions in a folder:
    qft eval --model llama --model tuned --data held_out.jsonl --questions sets
  A quick look at one set:
    qft eval --model tuned --questions hellaswag.jsonl --limit-questions 100";

/// Below the options of `export`.
pub(super) const EXPORT: &str = "\
Examples:
  For llama.cpp, LM Studio and Ollama:
    qft export --model tuned --to gguf --dtype q8_0 --out tuned-gguf
  In INT8 for vLLM:
    qft export --model tuned --to compressed-tensors --out tuned-w8a8";

/// Below the options of `data show`.
pub(super) const DATA_SHOW: &str = "\
Examples:
  The first documents, with what is learned marked:
    qft data show --model llama --data chat.jsonl
  Lengths and what was left out, and nothing else:
    qft data show --model llama --data chat.jsonl --count 0";

/// Below the options of `generate`.
pub(super) const GENERATE: &str = "\
Examples:
  Continue a text:
    qft generate --model tuned --prompt \"Dear reader,\" --temperature 0.8 --top-p 0.95
  Answer as the assistant:
    qft generate --model tuned --chat --prompt \"Name three rivers.\"
  Answer all questions of a file, sixteen at a time:
    qft generate --model tuned --chat --prompts questions.txt --batch-size 16 --out answers.jsonl";

/// Below the options of `chat`.
pub(super) const CHAT: &str = "\
Examples:
  Talk with a model, and go on another day:
    qft chat --model tuned --history talks.jsonl
  With instructions:
    qft chat --model tuned --system \"You answer in one sentence.\"
  In a script, a line for each turn:
    printf 'Hello\\nWho are you?\\n' | qft chat --model tuned --temperature 0";

/// Below the options of `report`.
pub(super) const REPORT: &str = "\
Examples:
  The page about a run, wherever it stands:
    qft report tuned
  A run beside two others:
    qft report tuned tried-first tried-next --out comparison.html";

/// Below the options of `plan`.
pub(super) const PLAN: &str = "\
Examples:
  Whether a model fits, before it is downloaded:
    qft plan --model llama-3-8b --states compact --seq-len 2048 --batch-size 1
  For a script:
    qft plan --model llama --json | jq .peak_bytes";

/// Below the options of `completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  qft completions bash > ~/.local/share/bash-completion/completions/qft
  qft completions zsh > \"${fpath[1]}/_qft\"
  qft completions fish > ~/.config/fish/completions/qft.fish";

/// Below the options of `man`.
pub(super) const MAN: &str = "\
Examples:
  Read the manual now:
    qft man | man -l -
  Install it, with a page for each command:
    qft man --out ~/.local/share/man/man1";
