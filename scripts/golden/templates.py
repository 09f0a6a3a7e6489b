"""Renders chat templates with transformers, as golden data for `crates/qft-train/tests/templates.rs`.

    python scripts/golden/templates.py                      # our miniature templates, into the repository
    python scripts/golden/templates.py FILE DIR [DIR ...]   # all templates below folders, into FILE

The second form is for real templates, which do not lie in the repository; `QFT_TEMPLATES=FILE cargo test -p qft-train
--test templates` compares with them. Made with transformers 5.24.0 and jinja2 3.1.6.
"""

import datetime
import json
import re
import sys
from pathlib import Path

import transformers.utils.chat_template_utils as utils

from miniatures import MINIATURES

BOS, EOS = "<s>", "</s>"
REPOSITORY = Path(__file__).resolve().parents[2]


class TrainingDate(datetime.datetime):
    """The date that templates are told in training, whatever the day."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


utils.datetime = TrainingDate

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <today> & \"now\".",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Köln", "Bonn"]}, "days": {"type": "integer", "default": 1}},
            "required": ["city"],
        },
    },
}
ARGUMENTS = {"city": "Köln", "days": 2, "least": 1e-07, "most": 1e20, "mean": 0.5, "dry": True, "wind": None, "at": [1, "b"]}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def call(arguments, **more):
    return {"type": "function", "function": {"name": "weather", "arguments": arguments}, **more}


ASKED = said("user", "What is the weather?")
ANSWER = said("tool", '{"temperature": 21.5}', name="weather", tool_call_id="abcdefghi")
LAST = said("assistant", "It is warm.")
HELLO = [said("user", "Hi"), said("assistant", "Hello!")]

CONVERSATIONS = {
    "one": {"messages": HELLO},
    "system": {"messages": [said("system", "Be kind."), *HELLO]},
    "several": {"messages": [said("system", "Be kind."), *HELLO, said("user", " Who? \n"), said("assistant", " Me.\n")]},
    "asked": {"messages": [*HELLO, said("user", "Who?")]},
    "unicode": {"messages": [said("user", "Grüße, 世界 \U0001f600\r\n\ttab \"quoted\" 'single' \\ <b>&"), said("assistant", "“ß”\n\n- a\n- b")]},
    "empty": {"messages": [said("user", ""), said("assistant", "")]},
    "null_keys": {"messages": [said("user", "Hi", tool_calls=None, name=None), said("assistant", "Hello!", tool_calls=None, reasoning_content=None)]},
    "null_content": {"messages": [ASKED, said("assistant", None, tool_calls=[call({"city": "Köln"}, id="abcdefghi")]), ANSWER, LAST], "tools": [WEATHER]},
    "calls": {"messages": [ASKED, said("assistant", "", tool_calls=[call(ARGUMENTS, id="abcdefghi")]), ANSWER, LAST], "tools": [WEATHER]},
    "calls_without_tools": {"messages": [ASKED, said("assistant", "I look.", tool_calls=[call({"city": "Köln"})]), ANSWER, LAST]},
    "two_calls": {"messages": [said("system", "Be kind."), ASKED, said("assistant", "", tool_calls=[call({"city": "Köln"}, id="abcdefghi"), call({"city": "Bonn", "days": 0}, id="bcdefghij")]), ANSWER, {**ANSWER, "tool_call_id": "bcdefghij"}, LAST, said("user", "Thanks"), said("assistant", "Bye")], "tools": [WEATHER, WEATHER]},
    "tools_unused": {"messages": [said("system", "Be kind."), *HELLO], "tools": [WEATHER]},
    "reasoning_content": {"messages": [*HELLO, said("user", "2+2?"), said("assistant", "4", reasoning_content="Two and\ntwo.")]},
    "thinking": {"messages": [said("user", "2+2?"), said("assistant", "4", thinking="Two and two.")]},
    "reasoning": {"messages": [said("user", "2+2?"), said("assistant", "4", reasoning="Two and two.")]},
    "think_tags": {"messages": [said("user", "2+2?"), said("assistant", "<think>\nTwo and two.\n</think>\n\n4"), said("user", "3+3?"), said("assistant", "<think>\nThree.\n</think>\n\n6")]},
}


def case(source, name, prompt):
    """One rendering, or the error; with what `{% generation %}` blocks mark."""
    talk = CONVERSATIONS[name]
    out = {"conversation": name, "prompt": prompt}
    try:
        texts, marks = utils.render_jinja_template(
            conversations=[utils._normalize_chat_messages(talk["messages"])],
            tools=talk.get("tools"),
            chat_template=source,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=bool(re.search(r"{%[-+]?\s*generation\b", source)),
            bos_token=BOS,
            eos_token=EOS,
        )
    except Exception as error:  # whatever a template may raise
        return {**out, "error": f"{type(error).__name__}: {error}"[:120]}
    out["text"] = texts[0]
    if marks:
        out["marked"] = [texts[0][start:end] for start, end in marks[0]]
    return out


def template(name, source, conversations, prompts=(False, True)):
    cases = [case(source, talk, prompt) for talk in conversations for prompt in prompts]
    return {"name": name, "source": source, "cases": cases}


def sources(path):
    """The templates of a file: Jinja, or JSON with `chat_template`."""
    if path.suffix == ".jinja":
        # Line ends as they are: the engine has to deal with them.
        return [(path.name, path.read_bytes().decode())]
    found = json.loads(path.read_text()).get("chat_template")
    if isinstance(found, list):
        return [(f"{path.name}:{entry['name']}", entry["template"]) for entry in found]
    return [(path.name, found)] if isinstance(found, str) else []


def main():
    if len(sys.argv) > 2:
        out = Path(sys.argv[1])
        files = [file for folder in sys.argv[2:] for file in sorted(Path(folder).rglob("*")) if file.suffix in (".jinja", ".json")]
        found = [(f"{file.parent.name}/{name}", source) for file in files for name, source in sources(file)]
        templates = [template(name, source, CONVERSATIONS) for name, source in found]
    else:
        out = REPOSITORY / "crates/qft-train/tests/golden/templates.json"
        out.parent.mkdir(exist_ok=True)
        templates = [template(name, source, talks, (False, True) if "add_generation_prompt" in source else (False,)) for name, (source, talks) in MINIATURES.items()]
    used = {case["conversation"] for template in templates for case in template["cases"]}
    conversations = {name: talk for name, talk in CONVERSATIONS.items() if name in used}
    golden = {"bos_token": BOS, "eos_token": EOS, "conversations": conversations, "templates": templates}
    out.write_text(json.dumps(golden, ensure_ascii=False, indent=0 if len(sys.argv) <= 2 else None) + "\n")
    cases = [case for template in templates for case in template["cases"]]
    print(f"{out}: {len(templates)} templates, {len(cases)} cases, {sum('error' in case for case in cases)} of them errors")


if __name__ == "__main__":
    main()
