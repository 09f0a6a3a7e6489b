//! What the environment says: the server, the token, the cache, and whether to stay offline.

use crate::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The server that is asked where none is given.
const ENDPOINT: &str = "https://huggingface.co";

/// What decides where files are looked for. The variables are those of `huggingface_hub`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server, without a slash at its end: `HF_ENDPOINT`.
    pub endpoint: String,
    /// Whom the server knows: `HF_TOKEN`, or what `hf auth login` left.
    pub token: Option<Token>,
    /// The cache's folder: `HF_HUB_CACHE`, or `hub` in `HF_HOME`.
    pub cache: PathBuf,
    /// Whether the cache alone is used: `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`.
    pub offline: bool,
    /// A file of certificates to trust instead of those that are built in: `SSL_CERT_FILE`.
    pub certificates: Option<PathBuf>,
    /// How often a request is made again.
    pub retries: Retries,
}

/// How often a request is made again that failed for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Times in a row that may fail without a byte that is new.
    pub attempts: u32,
    /// What is waited after the first time; each next is twice as long.
    pub pause: Duration,
    /// The longest wait, also of those that a server asks for.
    pub longest: Duration,
    /// How long a server may be silent.
    pub silence: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 6,
            pause: Duration::from_secs(1),
            longest: Duration::from_secs(120),
            silence: Duration::from_secs(30),
        }
    }
}

/// A secret: it cannot be printed, and goes to the server that it is for, only.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token, white space around it taken off; absent if nothing is left.
    ///
    /// Errors: [`Error::Token`] for characters that no header can have.
    pub fn new(text: &str) -> Result<Option<Self>, Error> {
        let text = text.trim();
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(Error::Token);
        }
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Settings {
    /// What the environment of this process says.
    ///
    /// Errors: those of [`Token::new`]; [`Error::NoHome`] if nothing says where the cache is.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(&|name| std::env::var_os(name), std::env::home_dir())
    }

    /// What `variable` says for each name, with the user's `home`.
    fn from_variables(
        variable: &dyn Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let home = home.filter(|home| !home.as_os_str().is_empty());
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let path = |name: &str| {
            given(name).map(PathBuf::from).map(|path| match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => home.join(rest),
                _ => path,
            })
        };
        let text = |name: &str| given(name).map(|value| value.to_string_lossy().into_owned());
        let is_true = |name: &str| {
            text(name).is_some_and(|value| {
                ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
            })
        };
        let cache_home = path("XDG_CACHE_HOME").or(home.as_ref().map(|home| home.join(".cache")));
        let hf_home = path("HF_HOME").or(cache_home.map(|home| home.join("huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(hf_home.as_ref()?.join("hub")))
            .ok_or(Error::NoHome)?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home.as_ref()?.join("token")));
        let token = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            _ if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") => None,
            Some(token) => Token::new(&token)?,
            None => match token_file.and_then(|file| std::fs::read_to_string(file).ok()) {
                Some(token) => Token::new(&token)?,
                None => None,
            },
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            cache,
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            certificates: path("SSL_CERT_FILE"),
            retries: Retries::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        };
        Settings::from_variables(&variable, Some("/home/me".into())).unwrap()
    }

    #[test]
    fn the_cache_is_where_other_programs_have_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).cache;
        assert_eq!(cache(&[]), PathBuf::from("/home/me/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), PathBuf::from("/x/huggingface/hub"));
        let home = [("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")];
        assert_eq!(cache(&home), PathBuf::from("/home/me/hf/hub"));
        let all = [("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")];
        assert_eq!(cache(&all), PathBuf::from("/new"));
        assert_eq!(cache(&all[..2]), PathBuf::from("/old"));
        assert_eq!(cache(&[("HF_HUB_CACHE", "")]), cache(&[]), "empty is not given");
        let nothing = Settings::from_variables(&|_| None, None);
        assert!(matches!(nothing, Err(Error::NoHome)));
    }

    #[test]
    fn server_and_offline() {
        let plain = settings(&[]);
        assert_eq!((plain.endpoint.as_str(), plain.offline), (ENDPOINT, false));
        let other = settings(&[("HF_ENDPOINT", "http://a:1/b/"), ("TRANSFORMERS_OFFLINE", "ON")]);
        assert_eq!((other.endpoint.as_str(), other.offline), ("http://a:1/b", true));
        assert!(settings(&[("HF_HUB_OFFLINE", "1")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn tokens_are_found_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("token"), "hf_file\n").unwrap();
        let token = |variables: &[(&str, &str)]| settings(variables).token.map(|t| t.header());
        assert_eq!(token(&[("HF_HOME", home)]).as_deref(), Some("Bearer hf_file"));
        let both = [("HF_HOME", home), ("HF_TOKEN", " hf_env ")];
        assert_eq!(token(&both).as_deref(), Some("Bearer hf_env"));
        assert_eq!(token(&[both[0], both[1], ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_HOME", "/absent")]), None);
        let shown = format!("{:?}", settings(&both));
        assert!(!shown.contains("hf_env"), "{shown}");
        let error = Token::new("hf_secret\u{7}x").unwrap_err().to_string();
        assert!(!error.contains("hf_secret"), "{error}");
    }
}
