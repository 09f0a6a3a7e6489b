//! Records of every format, and what is said of wrong ones.

use super::*;

fn read(value: Value) -> Result<Record> {
    let format = detect(&value)?;
    Record::from_json(value, format)
}

fn chat(value: Value) -> Conversation {
    match read(value).unwrap() {
        Record::Chat(talk) => talk,
        other => panic!("expected a conversation, found {other:?}"),
    }
}

fn completion(prompt: &str, completion: &str) -> Record {
    let (prompt, completion) = (prompt.into(), completion.into());
    Record::Completion { before: Conversation::default(), prompt, completion }
}

#[test]
fn every_format_is_read() {
    let text = json!({"text": "a", "label": false, "image": "a.png"});
    assert_eq!(read(text).unwrap(), Record::Text("a".into()));
    let record = read(json!({"prompt": "a", "completion": "b"})).unwrap();
    assert_eq!(record, completion("a", "b"));
    let talk = chat(json!({
        "instruction": "i", "input": "x", "output": "o", "text": "all", "system": "s",
        "history": [["q", "a"]],
    }));
    let contents: Vec<_> = talk.messages.iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(contents, ["s", "q", "a", "i\nx", "o"]);
    assert_eq!(talk.messages[3]["input"], "x");
    let talk = chat(json!({"conversations": [
        {"from": "human", "value": "h"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "g"},
    ], "tools": "[{\"name\": \"f\"}]"}));
    let roles: Vec<_> = talk.messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "assistant"]);
    assert_eq!(talk.messages[1]["tool_calls"][0]["function"]["name"], "f");
    assert_eq!(talk.tools.unwrap()[0]["function"]["name"], "f");
    let two =
        "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": \"{}\"}]";
    let talk = chat(json!({"conversations": [{"from": "function_call", "value": two}]}));
    let names = |i: usize| talk.messages[0]["tool_calls"][i]["function"]["name"].clone();
    assert_eq!((names(0), names(1)), (json!("f"), json!("g")));
    let talk = chat(json!({"messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": []},
    ]}));
    assert_eq!(talk.messages[0]["content"], "ab");
    assert_eq!(talk.messages[1].get("content"), None);
}

#[test]
fn roles_come_in_all_spellings() {
    let messages: Vec<_> = ["Human", "GPT", "model", "developer", "function", " Assistant"]
        .map(|role| json!({"role": role, "content": "x"}))
        .into();
    let talk = chat(json!({"messages": messages}));
    let roles: Vec<_> = talk.messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "assistant", "system", "tool", "assistant"]);
    // Both formats' names of the fields in both.
    let mixed = chat(json!({"messages": [{"from": "human", "value": "x", "weight": 1}]}));
    assert_eq!(mixed.messages, [json!({"role": "user", "content": "x", "weight": 1})]);
}

#[test]
fn columns_of_other_names() {
    let mut value = json!({"question": "a", "reply": "b", "prompt": "c"});
    let fields = ["prompt=question", "completion=reply"].map(|name| name.parse().unwrap());
    rename(&mut value, &fields).unwrap();
    assert_eq!(read(value).unwrap(), completion("a", "b"));
    // Nothing else is read in the place of a column that is not there; what may be absent may be.
    let mut value = json!({"prompt": "a", "completion": "b"});
    let told = rename(&mut value, &["prompt=question".parse().unwrap()]).unwrap_err();
    assert!(told.to_string().contains("no `question` here, but [prompt, completion]"), "{told}");
    rename(&mut value, &["system=rules".parse().unwrap()]).unwrap();
}

#[test]
fn calls_are_read_in_all_forms() {
    let call = json!({"name": "f", "arguments": {"a": 1}});
    let list = json!([{"type": "function", "function": call}]);
    for message in [
        json!({"role": "assistant", "content": "", "tool_calls": list.to_string()}),
        json!({"role": "assistant", "content": null, "function_call": call}),
        json!({"role": "assistant", "tool_calls": list}),
    ] {
        let mut talk = chat(json!({"messages": [message]}));
        assert_eq!(talk.messages[0]["tool_calls"], list, "{message}");
        write_calls(&mut talk);
        assert_eq!(talk.messages[0]["content"], call.to_string());
    }
    // What is said beside them stays.
    let message = json!({"role": "assistant", "content": "Wait.", "tool_calls": list});
    let mut talk = chat(json!({"messages": [message]}));
    write_calls(&mut talk);
    assert_eq!(talk.messages[0]["content"], format!("Wait.\n{call}"));
    let broken = json!({"messages": [{"role": "assistant", "content": "", "tool_calls": "[{"}]});
    assert!(read(broken).unwrap_err().to_string().contains("`messages[0]`"));
}

#[test]
fn calls_and_tools_may_be_texts_all_the_way_down() {
    let call = json!({"name": "f", "arguments": {"a": 1}});
    let listed = json!({"type": "function", "function": call});
    for message in [
        json!({"role": "assistant", "content": "", "function_call": call.to_string()}),
        json!({"role": "assistant", "content": "", "tool_calls": [listed.to_string()]}),
        json!({"role": "assistant", "content": "", "function_call": call, "tool_calls": []}),
    ] {
        let talk = chat(json!({"messages": [message]}));
        assert_eq!(talk.messages[0]["tool_calls"], json!([listed]), "{message}");
    }
    // Templates that know no calls see the same, whatever their arguments came as.
    let said = |arguments: Value| {
        let call = json!({"function": {"name": "f", "arguments": arguments}});
        let message = json!({"role": "assistant", "content": "", "tool_calls": [call]});
        let mut talk = chat(json!({"messages": [message]}));
        write_calls(&mut talk);
        talk.messages[0]["content"].clone()
    };
    assert_eq!(said(json!("{\"a\": 1}")), said(json!({"a": 1})));
    let tool = json!({"name": "f", "parameters": {}});
    let expected = json!([{"type": "function", "function": tool}]);
    let messages = json!([{"role": "user", "content": "x"}]);
    for (field, tools) in [
        ("tools", json!([tool.to_string()])),
        ("functions", json!([tool])),
        ("functions", json!([tool]).to_string().into()),
        ("tools", expected.clone()),
    ] {
        let talk = chat(json!({"messages": messages, field: tools}));
        assert_eq!(talk.tools.as_ref(), Some(&expected), "{field}");
    }
}

#[test]
fn what_is_not_to_be_learned_is_said_in_many_ways() {
    for (field, value) in [
        ("weight", json!(0)),
        ("train", json!(false)),
        ("training", json!(false)),
        ("loss", json!(false)),
        ("loss", json!(0.0)),
    ] {
        let message = json!({"role": "assistant", "content": "x", field: value});
        let talk = chat(json!({"messages": [message]}));
        assert_eq!(talk.messages[0]["train"], json!(false), "{field}");
    }
    for (field, value) in [("weight", json!(1)), ("loss", json!(true)), ("train", json!(null))] {
        let message = json!({"role": "assistant", "content": "x", field: value});
        let talk = chat(json!({"messages": [message]}));
        assert_ne!(talk.messages[0].get("train"), Some(&json!(false)), "{field}");
    }
}

#[test]
fn instructions_stand_beside_what_is_said() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let record = json!({"prompt": "a", "completion": "b", "system": "s", "tools": tools});
    let Record::Completion { before, .. } = read(record).unwrap() else { panic!() };
    assert_eq!(before.messages[0]["content"], "s");
    assert_eq!(before.tools, Some(tools.clone()));
    let talk = chat(json!({"instruction": "i", "output": "o", "tools": tools}));
    assert_eq!(talk.tools, Some(tools));
}

#[test]
fn prompts_and_completions_may_be_messages() {
    let mut value = json!({
        "prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                   {"role": "user", "content": "c"}],
        "completion": [{"role": "assistant", "content": "d"}],
    });
    join_conversation(&mut value);
    let talk = chat(value);
    let learned: Vec<_> =
        talk.messages.iter().map(|message| message.get("train").is_none()).collect();
    assert_eq!(learned, [false, false, false, true]);
    let mut text = json!({"prompt": "a", "completion": "b"});
    join_conversation(&mut text);
    assert_eq!(read(text).unwrap(), completion("a", "b"));
}

#[test]
fn fields_without_a_value_are_not_there() {
    let said = json!([{"from": "human", "value": "x", "role": null, "content": null}]);
    let talk = chat(json!({"messages": null, "conversations": said}));
    assert_eq!(talk.messages[0]["content"], "x");
}

#[test]
fn wrong_fields_are_named() {
    for (value, told) in [
        (json!({"messages": [{"role": "user", "content": 3}]}), "`messages[0]`: `content`"),
        (json!({"messages": [{"role": "dog", "content": "x"}]}), "`messages[0]`: `role`: `dog`"),
        (json!({"messages": [{"role": "user", "content": null}]}), "found nothing"),
        (json!({"messages": [{"role": "user", "content": "x", "weight": 0.5}]}), "`weight`"),
        (json!({"messages": [{"role": "user", "content": "x", "train": "no"}]}), "`train`"),
        (
            json!({"messages": [{"role": "user", "content": "x", "train_detail": [{}]}]}),
            "`train_detail`",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "", "tool_calls": {"name": "f"}}]}),
            "`tool_calls`",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "", "tool_calls": [3]}]}),
            "each call",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "", "function_call": 3}]}),
            "`function_call`",
        ),
        (json!({"messages": [{"role": "user", "content": "x"}], "tools": [3]}), "each tool"),
        (json!({"messages": [{"role": "user", "content": "x"}], "images": ["a.png"]}), "`images`"),
        (json!({"prompt": "a", "completion": "b", "label": false}), "`label` is false"),
        (json!({"messages": [{"role": "user", "content": "x"}], "kto_tag": false}), "`kto_tag`"),
        (
            json!({"conversations": [{"from": "human", "value": "x"}],
                "chosen": {"from": "gpt", "value": "y"}}),
            "`chosen`",
        ),
        (
            json!({"conversations": [{"from": "function_call", "value": "f(1)"}]}),
            "a call to a tool",
        ),
        (json!({"conversations": [{"from": "function_call", "value": "[3]"}]}), "found a number"),
        (json!({"messages": [{"content": "x"}]}), "`role` is missing"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image"}]}]}), "content[0]"),
        (json!({"messages": []}), "empty"),
        (json!({"messages": "x"}), "expected a list"),
        (json!({"conversations": [{"from": "dog", "value": "x"}]}), "`dog`"),
        (json!({"conversations": [{"from": "human", "value": 1}]}), "a number"),
        (json!({"conversations": [3]}), "conversations[0]"),
        (json!({"conversations": [], "tools": "{"}), "`tools`"),
        (json!({"instruction": "a", "output": 1}), "`output`"),
        (json!({"instruction": "a", "output": "b", "history": [["x"]]}), "history[0]"),
        (json!({"prompt": ["a"], "completion": "b"}), "`prompt`"),
        (json!({"text": null}), "`text`"),
        (json!([1]), "expected an object"),
        (json!({"text": binary::no_text()}), "`text`: is not UTF-8"),
        (json!({"messages": binary::no_text()}), "`messages`: is not UTF-8"),
        (
            json!({"messages": [{"role": "user", "content": binary::no_text()}]}),
            "`messages[0]`: `content`: is not UTF-8",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "a": [binary::no_text()]}]}),
            "`messages[0]`: `a`: is not UTF-8",
        ),
        (json!({"messages": [], "tools": [{"name": binary::no_text()}]}), "`tools`: is not UTF-8"),
        (
            json!({"instruction": "a", "output": "b", "history": [["x", binary::no_text()]]}),
            "history[0]",
        ),
    ] {
        let error = format!("{:#}", read(value).expect_err(told));
        assert!(error.contains(told), "{told:?} in {error:?}");
    }
    let error = Record::from_json(json!({"text": "a"}), DataFormat::Alpaca).unwrap_err();
    assert!(error.to_string().contains("looks like jsonl-text"), "{error}");
}
