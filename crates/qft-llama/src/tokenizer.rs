//! Text into the model's token ids and back.

mod added;
mod folder;
mod growth;
mod guard;
mod stream;

pub use stream::TextStream;

use crate::config::LlamaConfig;
use crate::error::Error;
use folder::ChatTemplates;
use growth::Rules;
use guard::guarded;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The tokenizer of a model's folder.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Vec<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    around: Around,
    templates: ChatTemplates,
}

/// A token that is looked for before a text is split.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) id: u32,
    pub(crate) text: String,
    pub(crate) special: bool,
    /// Whether it swallows blanks before it.
    pub(crate) left: bool,
    /// Whether it swallows blanks after it.
    pub(crate) right: bool,
}

/// The tokens that the tokenizer puts around a text.
#[derive(Debug, Default)]
struct Around {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, and what the folder's other files say about special tokens and chat.
    ///
    /// Padding and truncation that `tokenizer.json` may ask for are switched off: no token is added or lost.
    ///
    /// Errors: [`Error::Io`], [`Error::Json`], [`Error::Tokenizer`]; [`Error::TokenId`] if the begin or end
    /// token is outside the model's vocabulary.
    pub fn from_dir(dir: &Path, config: &LlamaConfig) -> Result<Self, Error> {
        let path = dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| {
            let remedy = "the model's folder needs a tokenizer.json; transformers writes one with \
                          AutoTokenizer.from_pretrained(...).save_pretrained(...)";
            Error::io("read the tokenizer", &path, remedy, source)
        })?;
        // The library takes it for granted that a file is JSON, and a download may have been cut off.
        let rules: Rules = serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.clone(),
            expected: "an object with the tokenizer",
            source,
        })?;
        let (mut inner, around) = guarded(&path, "read the file", || {
            rules.check()?;
            let mut inner = tokenizers::Tokenizer::from_bytes(bytes)?;
            inner.with_padding(None);
            inner.with_truncation(None)?;
            let around = around(&inner)?;
            // It may also cut blanks off the places of tokens, which are looked for.
            inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
            Ok((inner, around))
        })?;
        added::complete(dir, &mut inner)?;

        let special = folder::special_tokens(dir, config, |text| inner.token_to_id(text))?;
        let tokenizer = Self {
            path,
            inner,
            vocab_size: config.vocab_size,
            bos: special.bos,
            eos: special.eos,
            unknown: special.unknown,
            padding: special.padding,
            around,
            templates: folder::chat_templates(dir)?,
        };
        tokenizer.check(tokenizer.bos.as_slice())?;
        tokenizer.check(&tokenizer.around.before)?;
        tokenizer.check(&tokenizer.around.after)?;
        tokenizer.check(&tokenizer.eos)?;
        Ok(tokenizer)
    }

    /// Encodes `text` without adding special tokens; those spelled out in it are recognised.
    ///
    /// Errors: [`Error::TokenId`] for an id outside the model's vocabulary; [`Error::Tokenizer`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encode = || self.inner.encode_fast(text, false);
        let ids = guarded(&self.path, "encode a text", encode)?.get_ids().to_vec();
        self.check(&ids)?;
        Ok(ids)
    }

    /// As [`Tokenizer::encode`], with the bytes of the text that each token stands for.
    ///
    /// Errors: those of [`Tokenizer::encode`].
    pub fn encode_with_places(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), Error> {
        let encode = || self.inner.encode(text, false);
        let encoding = guarded(&self.path, "encode a text", encode)?;
        let ids = encoding.get_ids().to_vec();
        self.check(&ids)?;
        Ok((ids, encoding.get_offsets().iter().map(|&(start, end)| start..end).collect()))
    }

    /// Decodes `ids`, special tokens included. Bytes that are not UTF-8 become U+FFFD, and ids that the
    /// tokenizer has no entry for become nothing.
    ///
    /// Errors: [`Error::TokenId`] for an id outside the model's vocabulary; [`Error::Tokenizer`].
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, false)
    }

    /// Decodes `ids` without special tokens, as a reader wants to see them.
    ///
    /// Errors: as [`Tokenizer::decode`].
    pub fn decode_plain(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, true)
    }

    fn decode_with(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        self.check(ids)?;
        guarded(&self.path, "decode token ids", || self.inner.decode(ids, skip_special))
    }

    /// Decodes tokens as they are generated after `prompt`.
    pub fn stream(&self, prompt: &[u32]) -> TextStream<'_> {
        TextStream::new(self, prompt)
    }

    /// The tokens that the tokenizer puts before a text: what its post-processor does, whatever `bos` is.
    pub fn before_text(&self) -> &[u32] {
        &self.around.before
    }

    /// The tokens that the tokenizer puts after a text.
    pub fn after_text(&self) -> &[u32] {
        &self.around.after
    }

    /// The token for what the tokenizer cannot spell.
    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The token that fills sequences up, for programs that need one.
    pub fn padding(&self) -> Option<u32> {
        self.padding
    }

    /// The file that it was read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens that are looked for before a text is split.
    pub(crate) fn added(&self) -> Vec<Added> {
        let tokens = self.inner.get_added_tokens_decoder().into_iter();
        let added = tokens.map(|(id, token)| Added {
            id,
            text: token.content,
            special: token.special,
            left: token.lstrip,
            right: token.rstrip,
        });
        added.collect()
    }

    /// The token that begins a sequence, for chat templates.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a sequence; the first is the one to write. May be empty.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// Makes a token one of those that end a sequence.
    ///
    /// Errors: [`Error::TokenId`] for an id outside the model's vocabulary.
    pub fn add_end(&mut self, id: u32) -> Result<(), Error> {
        self.check(&[id])?;
        if !self.eos.contains(&id) {
            self.eos.push(id);
        }
        Ok(())
    }

    /// Whether a token is one of those that are looked for before a text is split.
    pub fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().contains_key(&id)
    }

    /// Rows of the model's embedding; every id that [`Tokenizer::encode`] returns is below.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Entries of the tokenizer, added tokens included.
    pub fn entries(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token by its exact text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The exact text of a token.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The Jinja template for conversations, if the model has one.
    pub fn chat_template(&self) -> Option<&str> {
        self.templates.default.as_deref()
    }

    /// The Jinja template for conversations with tools, if the model has another one for these.
    pub fn chat_template_with_tools(&self) -> Option<&str> {
        self.templates.with_tools.as_deref()
    }

    fn check(&self, ids: &[u32]) -> Result<(), Error> {
        let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) else {
            return Ok(());
        };
        Err(Error::TokenId {
            path: self.path.clone(),
            token: self.token(id).unwrap_or_else(|| "unknown".into()),
            id,
            tokenizer_size: self.entries(),
            vocab_size: self.vocab_size,
        })
    }
}

/// What a tokenizer puts around a text.
fn around(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<Around> {
    let text = "a";
    let bare = tokenizer.encode_fast(text, false)?;
    let whole = tokenizer.encode_fast(text, true)?;
    let (bare, whole) = (bare.get_ids(), whole.get_ids());
    let place =
        (0..=whole.len().saturating_sub(bare.len())).find(|&i| whole[i..].starts_with(bare));
    Ok(place.map_or_else(Around::default, |place| Around {
        before: whole[..place].to_vec(),
        after: whole[place + bare.len()..].to_vec(),
    }))
}
