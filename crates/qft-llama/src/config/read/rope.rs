//! Rotary positions: `rope_parameters` of transformers 5, `rope_scaling` and `rope_theta` of older versions, or both.

use super::object::Object;
use crate::Error;
use crate::config::defaults::Defaults;
use crate::config::rope::{longrope_attention_factor, yarn_attention_factor};
use crate::config::{Family, LayerRope, Rope, RopeScaling};

/// The kinds of layers that can have a rope of their own.
const LAYER_TYPES: [&str; 2] = ["full_attention", "sliding_attention"];
const KINDS: &str = "default, linear, dynamic, llama3, yarn or longrope";
const ONE_OF_TWO: &str = "correct one of the two in config.json, or remove it";

/// What a rope is read from, and what else it depends on.
pub(super) struct RopeReader<'a> {
    pub(super) root: &'a Object<'a>,
    pub(super) family: Family,
    pub(super) head_dim: usize,
    pub(super) positions: usize,
}

impl RopeReader<'_> {
    /// The rope of the model, and what its windowed layers have of it.
    pub(super) fn read(&self) -> Result<(Rope, LayerRope), Error> {
        if self.family == Family::Olmo3 {
            return self.by_layer_type();
        }
        let scaling = self.object("rope_scaling")?;
        let parameters = self.object("rope_parameters")?;
        let both = scaling.is_some() && parameters.is_some();
        // transformers takes `rope_scaling` where there are both, other programs do not: they must agree.
        let rope = self.rope(scaling.as_ref().or(parameters.as_ref()))?;
        if both && self.rope(parameters.as_ref())? != rope {
            let expected = "the same as in rope_scaling and rope_theta";
            return Err(self.root.error("rope_parameters", expected, "another rope", ONE_OF_TWO));
        }
        Ok((rope, LayerRope::Scaled))
    }

    /// An object that is there and not empty.
    fn object(&self, key: &str) -> Result<Option<Object<'_>>, Error> {
        Ok(self.root.object(key)?.filter(|object| !object.map.is_empty()))
    }

    /// OLMo 3: one rope for layers that see everything, and one for those with a window.
    fn by_layer_type(&self) -> Result<(Rope, LayerRope), Error> {
        let parameters = self.object("rope_parameters")?;
        if let Some(object) = &parameters
            && let Some(key) = object.map.keys().find(|key| !LAYER_TYPES.contains(&key.as_str()))
        {
            return Err(object.invalid(key, "full_attention and sliding_attention only", "it"));
        }
        let part = |key: &str| match &parameters {
            Some(object) => object.object(key),
            None => Ok(None),
        };
        let [full, windowed] = LAYER_TYPES.map(part);
        let (full, windowed) = (full?, windowed?);
        let mut rope = self.rope(full.as_ref())?;
        if let Some(scaling) = self.object("rope_scaling")? {
            let kind = scaling.get("type").filter(|&kind| kind != "default");
            if let (Some(kind), None) = (kind, scaling.get("rope_type")) {
                // transformers 4 reads this spelling, and transformers 5 passes over it.
                return Err(scaling.invalid("type", "the key rope_type in its place", kind));
            }
            let older = self.rope(Some(&scaling))?;
            if full.is_some() && older != rope {
                let key = "rope_parameters.full_attention";
                let expected = "the same as in rope_scaling and rope_theta";
                return Err(self.root.error(key, expected, "another rope", ONE_OF_TWO));
            }
            rope = older;
        }
        let kind = self.windowed(&rope, windowed.as_ref())?;
        Ok((rope, kind))
    }

    /// What the windowed layers have of `rope`, that of the others.
    fn windowed(&self, rope: &Rope, own: Option<&Object<'_>>) -> Result<LayerRope, Error> {
        let default = Defaults::of(self.family).rope_theta;
        let inner = own.map(|object| object.optional_number("rope_theta")).transpose()?.flatten();
        // Here transformers does not look at the `rope_theta` at the top.
        let theta = inner.unwrap_or(default);
        let scaling = match own {
            Some(own) => self.scaling(own, self.rotated(Some(own))?)?,
            None => RopeScaling::Default,
        };
        let key = "rope_parameters.sliding_attention.rope_theta";
        if theta != rope.theta {
            let expected = format!("{}, as layers without a window have", rope.theta);
            return Err(self.root.unsupported(key, expected, theta));
        }
        match scaling {
            scaling if scaling == rope.scaling => Ok(LayerRope::Scaled),
            RopeScaling::Default => Ok(LayerRope::Plain),
            _ => {
                let key = "rope_parameters.sliding_attention.rope_type";
                Err(self.root.unsupported(key, "default", "another"))
            }
        }
    }

    /// The rope that `inner` gives, completed from the top.
    fn rope(&self, inner: Option<&Object<'_>>) -> Result<Rope, Error> {
        let theta = match inner.map(|object| object.optional_number("rope_theta")).transpose()? {
            Some(Some(theta)) => theta,
            _ => {
                let outer = self.root.optional_number("rope_theta")?;
                outer.unwrap_or(Defaults::of(self.family).rope_theta)
            }
        };
        let rotated = self.rotated(inner)?;
        let scaling = match inner {
            Some(inner) => self.scaling(inner, rotated)?,
            None => RopeScaling::Default,
        };
        Ok(Rope { theta, rotated: Some(rotated).filter(|&r| r != self.head_dim), scaling })
    }

    /// How many dimensions of a head are rotated.
    fn rotated(&self, inner: Option<&Object<'_>>) -> Result<usize, Error> {
        const KEY: &str = "partial_rotary_factor";
        let places = [inner, Some(self.root)];
        for object in places.into_iter().flatten() {
            let Some(part) = object.optional_number(KEY)?.filter(|&part| part != 1.0) else {
                continue;
            };
            if self.family != Family::Phi3 {
                return Err(object.unsupported(KEY, "1.0", part));
            }
            let rotated = (self.head_dim as f64 * part) as usize;
            if !(part > 0.0 && part < 1.0 && rotated > 0 && rotated.is_multiple_of(2)) {
                let expected = format!("a part of head_dim {} that is even", self.head_dim);
                return Err(object.invalid(KEY, expected, part));
            }
            return Ok(rotated);
        }
        Ok(self.head_dim)
    }

    fn scaling(&self, object: &Object<'_>, rotated: usize) -> Result<RopeScaling, Error> {
        let key = if object.get("rope_type").is_some() { "rope_type" } else { "type" };
        let Some(kind) = object.get(key) else {
            // Only the base and the rotated part may be given.
            let known = |key: &String| matches!(&**key, "rope_theta" | "partial_rotary_factor");
            if object.map.keys().all(known) {
                return Ok(RopeScaling::Default);
            }
            return Err(object.invalid("rope_type", "a name", "nothing"));
        };
        match (kind.as_str(), self.family) {
            (Some("default"), _) => Ok(RopeScaling::Default),
            (Some("longrope" | "su" | "yarn"), Family::Phi3) => self.longrope(object, rotated),
            (_, Family::Phi3) => Err(object.unsupported(key, "default or longrope", kind)),
            (Some("linear"), _) => Ok(RopeScaling::Linear { factor: object.number("factor")? }),
            (Some("dynamic"), _) => Ok(RopeScaling::Dynamic {
                factor: object.number("factor")?,
                max_position_embeddings: self.positions,
            }),
            (Some("llama3"), _) => Ok(RopeScaling::Llama3 {
                factor: object.number("factor")?,
                low_freq_factor: object.number("low_freq_factor")?,
                high_freq_factor: object.number("high_freq_factor")?,
                original_max_position_embeddings: self.original(object)?,
            }),
            (Some("yarn"), _) => self.yarn(object),
            (Some("longrope"), _) => self.longrope(object, rotated),
            _ => Err(object.unsupported(key, KINDS, kind)),
        }
    }

    fn yarn(&self, object: &Object<'_>) -> Result<RopeScaling, Error> {
        let original = self.original(object)?;
        let factor = match object.optional_number("factor")? {
            Some(factor) => factor,
            None if object.is_null("factor") => self.positions as f64 / original as f64,
            None => return Err(object.invalid("factor", "a number", "nothing")),
        };
        // A zero counts as absent, as in transformers.
        let some = |key: &str, default: f64| {
            let number = object.optional_number(key)?.filter(|&number| number != 0.0);
            Ok::<_, Error>(number.unwrap_or(default))
        };
        let implied =
            yarn_attention_factor(factor, some("mscale", 0.0)?, some("mscale_all_dim", 0.0)?);
        let truncate = object.flag("truncate")?.unwrap_or(true);
        if !truncate && self.family == Family::Olmo3 {
            // transformers looks for the key in another place and does not find it.
            return Err(object.unsupported("truncate", true, truncate));
        }
        Ok(RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: original,
            beta_fast: some("beta_fast", 32.0)?,
            beta_slow: some("beta_slow", 1.0)?,
            truncate,
            attention_factor: object.optional_number("attention_factor")?.unwrap_or(implied) as f32,
        })
    }

    fn longrope(&self, object: &Object<'_>, rotated: usize) -> Result<RopeScaling, Error> {
        let original = self.original(object)?;
        let factor = object.optional_number("factor")?;
        let factor = factor.unwrap_or(self.positions as f64 / original as f64);
        let implied = longrope_attention_factor(factor, original);
        let factors = |key: &str| {
            let factors = object.numbers(key)?;
            if factors.len() != rotated / 2 {
                let expected = format!("{} numbers, one for each rotated pair", rotated / 2);
                return Err(object.invalid(key, expected, factors.len()));
            }
            Ok(factors)
        };
        Ok(RopeScaling::LongRope {
            short_factor: factors("short_factor")?,
            long_factor: factors("long_factor")?,
            original_max_position_embeddings: original,
            attention_factor: object.optional_number("attention_factor")?.unwrap_or(implied) as f32,
        })
    }

    /// The context of pretraining. The key at the top counts before that beside the factors, except where layers
    /// have ropes of their own; without either, the model's positions count.
    fn original(&self, object: &Object<'_>) -> Result<usize, Error> {
        const KEY: &str = "original_max_position_embeddings";
        let inner = object.optional_size(KEY)?;
        let outer = match self.family {
            Family::Olmo3 => None,
            family => {
                let default = Defaults::of(family).original_max_position_embeddings;
                self.root.optional_size(KEY)?.or(default)
            }
        };
        match outer.or(inner).unwrap_or(self.positions) {
            0 => Err(object.invalid(KEY, "a positive integer", 0)),
            size => Ok(size),
        }
    }
}
