//! Which files of a data set are asked for: by their names, as the library `datasets` infers splits.

use std::collections::{BTreeMap, BTreeSet};

/// Endings of data files.
const DATA: [&str; 8] = ["parquet", "jsonl", "ndjson", "json", "csv", "tsv", "txt", "text"];

/// Endings of packed files.
const PACKED: [&str; 3] = ["gz", "zst", "zstd"];

/// Files that end as data does and are none.
const NONE_OF_DATA: [&str; 4] =
    ["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"];

/// Beginnings of texts that are none of data.
const TEXTS: [&str; 6] = ["readme", "license", "licence", "notice", "requirements", "changelog"];

/// The split that is meant where none is given.
const TRAIN: &str = "train";

/// Each split that is known by words, and the words.
const KEYWORDS: [(&str, &[&str]); 3] = [
    (TRAIN, &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// The folder that data is often in, which says nothing of what it is.
const FOLDER: &str = "data";

/// Names that a message shows at most.
const SHOWN: usize = 12;

/// The data files among those of a folder, by the split that their names say; one that says none is taken for training data.
/// What is no data, such as a licence, is left out.
#[must_use]
pub fn splits_of_folder<'a>(names: &[&'a str]) -> BTreeMap<&'a str, Vec<&'a str>> {
    let data: Vec<&str> = names.iter().copied().filter(|name| is_data(name)).collect();
    let (mut found, _) = splits(&data);
    let known: BTreeSet<&str> = found.values().flatten().copied().collect();
    let rest: Vec<_> = data.into_iter().filter(|name| !known.contains(name)).collect();
    found.entry(TRAIN).or_default().extend(rest);
    found.retain(|_, files| !files.is_empty());
    found
}

/// The files of a split, in the order of their names.
///
/// `paths` are all files of the repository; `inside` is a folder or a file of it. Files that cannot be told apart (in several
/// folders, of several kinds) are not mixed.
///
/// Errors: what is wrong, what there is, and what to give.
pub(crate) fn choose<'a>(
    paths: &[&'a str],
    inside: Option<&str>,
    split: Option<&str>,
) -> Result<Vec<&'a str>, String> {
    let data: Vec<&str> = paths.iter().copied().filter(|path| is_data(path)).collect();
    if data.is_empty() {
        return Err(format!(
            "the repository has no data files that are read (.{}, packed or not); it has {}",
            DATA.join(", ."),
            some(paths.iter().copied())
        ));
    }
    if let Some(file) = inside.filter(|inside| data.contains(inside)) {
        return match split {
            None => Ok(data.into_iter().filter(|path| *path == file).collect()),
            Some(split) => Err(format!("{file} is a file; leave out :{split}")),
        };
    }
    let start = inside.map_or_else(String::new, |folder| format!("{folder}/"));
    let within: Vec<_> =
        data.iter().filter_map(|path| Some((path.strip_prefix(&start)?, *path))).collect();
    if within.is_empty() {
        return Err(format!(
            "there are no data files in {}; there are {}",
            start.trim_end_matches('/'),
            some(folders(&data))
        ));
    }
    let relative: Vec<&str> = within.iter().map(|(path, _)| *path).collect();
    let given = split.unwrap_or(TRAIN);
    let (splits, exact) = splits(&relative);
    let known = KEYWORDS.iter().find(|(_, words)| words.contains(&given));
    let asked = match known {
        Some((name, _)) if !splits.contains_key(given) => name,
        _ => given,
    };
    let found = match splits.get(asked) {
        Some(found) => found.clone(),
        // By numbered names, the splits are known: `train_sft` is none of `train`. And of the usual ones, the first kind of
        // sign decides whether they are there.
        None if exact || known.is_some() => Vec::new(),
        None => of_words(&relative, asked),
    };
    if found.is_empty() {
        return Err(format!(
            "there is no split `{asked}`; there are {}, each to be given as :SPLIT",
            some(splits.keys().copied())
        ));
    }
    check_one(&found, asked, inside.is_none())?;
    let is_found = |(path, whole): &(&'a str, &'a str)| found.contains(path).then_some(*whole);
    let mut chosen: Vec<_> = within.iter().filter_map(is_found).collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// That the files of a split are of one kind; where it is `anywhere`, also that they are of one part.
fn check_one(found: &[&str], asked: &str, anywhere: bool) -> Result<(), String> {
    let parts: BTreeSet<_> = found.iter().map(|path| part(path, asked)).collect();
    if anywhere && parts.len() > 1 {
        let named = |part: &&str| if part.is_empty() { "the root" } else { *part }.to_owned();
        let named: Vec<_> = parts.iter().map(named).collect();
        return Err(format!(
            "the split `{asked}` is in several parts: {}; give one, as ORG/NAME/PART or ORG/NAME/FILE",
            some(named.iter().map(String::as_str))
        ));
    }
    let kinds: BTreeSet<_> = found.iter().map(|path| kind(path)).collect();
    if kinds.len() > 1 {
        return Err(format!(
            "the split `{asked}` has files of several kinds: {}; give one of them, as ORG/NAME/FILE",
            some(found.iter().copied())
        ));
    }
    Ok(())
}

/// The splits that the files say to have, the first kind of sign that any file has deciding: `data/NAME-00000-of-00001`, names of
/// folders, names of files. Without a sign all of them are the training data. Also, whether the signs are numbered names,
/// beside which there are no other splits.
fn splits<'a>(paths: &[&'a str]) -> (BTreeMap<&'a str, Vec<&'a str>>, bool) {
    let mut sharded: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for path in paths {
        if let Some(name) = path.strip_prefix("data/").and_then(shard_of) {
            sharded.entry(name).or_default().push(path);
        }
    }
    if !sharded.is_empty() {
        return (sharded, true);
    }
    let signs: [fn(&str, &str) -> bool; 2] = [in_folder, in_name];
    for sign in signs {
        let of = |words: &[&str]| -> Vec<&str> {
            paths.iter().copied().filter(|path| words.iter().any(|word| sign(path, word))).collect()
        };
        let found: BTreeMap<_, _> = KEYWORDS
            .iter()
            .map(|(name, words)| (*name, of(words)))
            .filter(|(_, files)| !files.is_empty())
            .collect();
        if !found.is_empty() {
            return (found, false);
        }
    }
    (BTreeMap::from([(TRAIN, paths.to_vec())]), false)
}

/// The files that have `word` in the name of a folder, or else in their own.
fn of_words<'a>(paths: &[&'a str], word: &str) -> Vec<&'a str> {
    let of = |sign: fn(&str, &str) -> bool| -> Vec<&str> {
        paths.iter().copied().filter(|path| sign(path, word)).collect()
    };
    Some(of(in_folder)).filter(|found| !found.is_empty()).unwrap_or_else(|| of(in_name))
}

/// The split of a file that is one of several by its name: `NAME-00000-of-00001….ENDING`.
fn shard_of(name: &str) -> Option<&str> {
    let (before, after) = name.split_once("-of-")?;
    let five = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let (split, number) = before.rsplit_once('-')?;
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let fits = five(number)
        && after.get(..5).is_some_and(five)
        && after.contains('.')
        && !split.is_empty()
        && !name.contains('/')
        && split.chars().all(word);
    fits.then_some(split)
}

fn in_folder(path: &str, word: &str) -> bool {
    let (folders, _) = path.rsplit_once('/').unwrap_or_default();
    folders.split('/').any(|folder| has_word(folder, word, true))
}

fn in_name(path: &str, word: &str) -> bool {
    has_word(path.rsplit('/').next().unwrap_or_default(), word, false)
}

/// Whether a name has a word in it, between its ends and signs or digits.
fn has_word(name: &str, word: &str, end_counts: bool) -> bool {
    let sign = |c: char| matches!(c, '-' | '.' | '_' | ' ') || c.is_ascii_digit();
    name.match_indices(word).any(|(at, _)| {
        let (before, after) = (&name[..at], &name[at + word.len()..]);
        let begins = before.is_empty() || before.ends_with(sign);
        let ends = if after.is_empty() { end_counts } else { after.starts_with(sign) };
        begins && ends
    })
}

/// The first folder of a path, unless it says nothing but a split; else nothing.
fn part<'a>(path: &'a str, asked: &str) -> &'a str {
    let Some((first, _)) = path.split_once('/') else { return "" };
    let of_split = |word: &str| has_word(first, word, true);
    let plain = first == FOLDER
        || of_split(asked)
        || KEYWORDS.iter().any(|(_, words)| words.iter().any(|word| of_split(word)));
    if plain { "" } else { first }
}

/// The folders at the root.
fn folders<'a>(paths: &[&'a str]) -> impl Iterator<Item = &'a str> {
    let firsts: BTreeSet<_> =
        paths.iter().map(|path| path.split('/').next().unwrap_or(path)).collect();
    firsts.into_iter()
}

/// Whether a file is one of data.
fn is_data(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default().to_lowercase();
    let hidden = path.split('/').any(|part| part.starts_with('.') || part.starts_with("__"));
    let text = name.ends_with(".txt") && TEXTS.iter().any(|start| name.starts_with(start));
    !hidden && !text && !NONE_OF_DATA.contains(&name.as_str()) && DATA.contains(&kind(&name))
}

/// The ending of a name, without that of a packed file.
fn kind(name: &str) -> &str {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    match PACKED.contains(&ending) {
        true => stem.rsplit_once('.').map_or("", |(_, ending)| ending),
        false => ending,
    }
}

/// Some of many names, and how many more there are.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    match names.len() {
        0 => "nothing".into(),
        count if count > SHOWN => {
            format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN)
        }
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(paths: &[&str], inside: Option<&str>, split: Option<&str>) -> String {
        match choose(paths, inside, split) {
            Ok(files) => files.join(" "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn files_of_a_folder_are_told_apart_by_their_names() {
        let names = ["LICENSE.txt", "README.md", "b.jsonl", "train.csv.gz", "my_test.jsonl"];
        let found = splits_of_folder(&names);
        let expected =
            [("test", vec!["my_test.jsonl"]), ("train", vec!["train.csv.gz", "b.jsonl"])];
        assert_eq!(found, BTreeMap::from(expected));
        assert_eq!(splits_of_folder(&["a.txt"]), BTreeMap::from([("train", vec!["a.txt"])]));
        assert_eq!(
            splits_of_folder(&["dev.txt"]),
            BTreeMap::from([("validation", vec!["dev.txt"])])
        );
        assert!(splits_of_folder(&["NOTICE.txt"]).is_empty());
    }

    #[test]
    fn splits_by_name() {
        let shards = [
            "README.md",
            "data/test-00000-of-00001.parquet",
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002-abc.parquet",
        ];
        assert_eq!(chosen(&shards, None, None), [shards[2], shards[3]].join(" "));
        assert_eq!(chosen(&shards, None, Some("test")), shards[1]);
        let told = chosen(&shards, None, Some("validation"));
        assert!(told.contains("no split `validation`; there are test, train"), "{told}");

        let sft =
            ["data/train_gen-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"];
        assert_eq!(chosen(&sft, None, Some("train_sft")), sft[1]);
        let told = chosen(&sft, None, None);
        assert!(told.contains("no split `train`; there are train_gen, train_sft"), "{told}");
        let dev = ["data/dev-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"];
        assert_eq!(chosen(&dev, None, Some("dev")), dev[0]);
        assert_eq!(chosen(&dev, None, Some("val")), dev[1]);
    }

    #[test]
    fn folders_and_files_name_splits() {
        let files =
            ["dev.jsonl", "my_train_file.jsonl", "test1.jsonl", "training.jsonl", "trained.jsonl"];
        assert_eq!(chosen(&files, None, None), "my_train_file.jsonl training.jsonl");
        assert_eq!(chosen(&files, None, Some("val")), "dev.jsonl");
        assert_eq!(chosen(&files, None, Some("eval")), "test1.jsonl");
        let folders = ["test/a.csv", "train/a.csv", "train/deep/b.csv", "train.csv"];
        assert_eq!(chosen(&folders, None, None), "train/a.csv train/deep/b.csv");
        let plain =
            ["a.json.gz", "b.json.zst", "dataset_infos.json", ".hidden.json", "LICENSE.txt"];
        assert_eq!(chosen(&plain, None, None), "a.json.gz b.json.zst");
        assert!(chosen(&plain, None, Some("test")).contains("there are train"));
    }

    #[test]
    fn what_is_ambiguous_is_told() {
        let parts = ["de/train.csv", "en/train.csv", "en/test.csv"];
        let told = chosen(&parts, None, None);
        assert!(told.contains("several parts: de, en; give one"), "{told}");
        assert_eq!(chosen(&parts, None, Some("test")), "en/test.csv");
        assert_eq!(chosen(&parts, Some("en"), None), "en/train.csv");
        assert_eq!(chosen(&parts, Some("de/train.csv"), None), "de/train.csv");
        assert!(chosen(&parts, Some("de/train.csv"), Some("test")).contains("leave out :test"));
        assert!(chosen(&parts, Some("fr"), None).contains("no data files in fr; there are de, en"));
        let kinds = ["train.csv", "train.parquet"];
        let told = chosen(&kinds, None, None);
        assert!(told.contains("several kinds: train.csv, train.parquet"), "{told}");
        let none = chosen(&["script.py", "data.zip"], None, None);
        assert!(none.contains("no data files") && none.contains("script.py, data.zip"), "{none}");
        let many: Vec<String> = (0..20).map(|i| format!("p{i}/train.csv")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(chosen(&many, None, None).contains("and 8 more"));
    }

    #[test]
    fn as_the_library_has_them() {
        #[derive(serde::Deserialize)]
        struct Case {
            files: Vec<String>,
            splits: BTreeMap<String, Vec<String>>,
        }
        // By scripts/golden/splits.py.
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../tests/golden/splits.json")).unwrap();
        let (mut equal, mut refused) = (0, 0);
        for Case { files, splits } in &cases {
            let paths: Vec<&str> = files.iter().map(String::as_str).collect();
            for split in [TRAIN, "validation", "test"] {
                match (choose(&paths, None, Some(split)), splits.get(split)) {
                    (Ok(found), Some(expected)) => {
                        let expected: Vec<_> =
                            expected.iter().filter(|path| is_data(path)).collect();
                        assert_eq!(found, expected, "{split} of {files:?}");
                        equal += 1;
                    }
                    // Not mixed: the user says which.
                    (Err(told), Some(_)) => {
                        assert!(
                            told.contains("several parts") || told.contains("no split"),
                            "{told}: {files:?}"
                        );
                        refused += 1;
                    }
                    (Ok(found), None) => {
                        panic!("{split} of {files:?} is {found:?}, and the library has none")
                    }
                    (Err(_), None) => equal += 1,
                }
            }
        }
        assert!(equal > 250 && refused < 80, "{equal} equal, {refused} refused");
    }
}
