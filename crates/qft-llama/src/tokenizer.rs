//! Text into the model's token ids and back.

mod folder;
mod growth;
mod guard;
mod stream;

pub use stream::TextStream;

use crate::config::LlamaConfig;
use crate::error::Error;
use growth::Rules;
use guard::guarded;
use std::path::{Path, PathBuf};

/// The tokenizer of a model's folder.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
    bos: Option<u32>,
    eos: Vec<u32>,
    chat_template: Option<String>,
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
        let inner = guarded(&path, "read the file", || {
            rules.check()?;
            let mut inner = tokenizers::Tokenizer::from_bytes(bytes)?;
            inner.with_padding(None);
            inner.with_truncation(None)?;
            Ok(inner)
        })?;

        let special = folder::special_tokens(dir, config, |text| inner.token_to_id(text))?;
        let chat_template = folder::chat_template(dir)?;
        let vocab_size = config.vocab_size;
        let tokenizer =
            Self { path, inner, vocab_size, bos: special.bos, eos: special.eos, chat_template };
        tokenizer.check(tokenizer.bos.as_slice())?;
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

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokens that end a sequence; the first is the one to write. May be empty.
    pub fn eos(&self) -> &[u32] {
        &self.eos
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
        self.chat_template.as_deref()
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
