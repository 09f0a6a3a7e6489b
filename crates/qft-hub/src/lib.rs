//! Models and data sets of the Hugging Face hub, by name.
//!
//! [`ModelName`] and [`DataName`] say what is a path and what a name. [`Hub`] finds the files: in the cache that other
//! programs share ([`Settings`] says where), or by fetching them into it, with hashes and sizes checked. What happens
//! meanwhile is told as a [`Notice`]. Nothing here knows what models and data are for.

mod cache;
mod choose;
mod client;
mod error;
mod fetch;
mod hash;
mod hub;
mod listing;
mod name;
mod notice;
mod patience;
mod settings;
mod splits;

pub use error::Error;
pub use hub::{DataFiles, Hub, Need, Origin, Snapshot};
pub use name::{DataName, Kind, ModelName, ModelRepository, Repository};
pub use notice::{Notice, Watch};
pub use settings::{Retries, Settings, Token};
pub use splits::splits_of_folder;
