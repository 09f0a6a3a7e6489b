//! Groups of parameters with learning rates of their own.

use crate::error::{Result, ensure};
use crate::step::groups::{Group, GroupFactors};
use qft_llama::LlamaConfig;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// A group and its largest learning rate, as given: `norms=1e-4`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupRate {
    group: Group,
    rate: f64,
}

impl FromStr for GroupRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = Group::ALL.map(Group::name).join(", ");
        let Some((name, rate)) = text.split_once('=') else {
            return Err(format!("expected GROUP=RATE with one of the groups {names}"));
        };
        let Some(group) = Group::ALL.into_iter().find(|group| group.name() == name) else {
            return Err(format!("`{name}` is no group of parameters; give one of {names}"));
        };
        match rate.parse() {
            Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(Self { group, rate }),
            _ => Err(format!(
                "`{rate}` is no learning rate; give a number from 0 to 1, such as 1e-5"
            )),
        }
    }
}

impl TryFrom<String> for GroupRate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<GroupRate> for String {
    fn from(GroupRate { group, rate }: GroupRate) -> String {
        format!("{}={rate:e}", group.name())
    }
}

/// The largest learning rates of the groups that have one of their own.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GroupRates {
    embeddings: Option<f64>,
    head: Option<f64>,
    norms: Option<f64>,
    biases: Option<f64>,
}

impl GroupRates {
    /// Of what was given.
    ///
    /// Errors: a group that was given twice.
    pub(super) fn resolve(given: &[GroupRate]) -> Result<Self> {
        let mut rates = Self::default();
        for &GroupRate { group, rate } in given {
            let own = rates.of_mut(group);
            ensure!(own.is_none(), "--group-lr: {} was given twice; leave one out", group.name());
            *own = Some(rate);
        }
        Ok(rates)
    }

    /// As it would be given.
    pub fn given(mut self) -> Vec<GroupRate> {
        let rate = |group| Some(GroupRate { group, rate: (*self.of_mut(group))? });
        Group::ALL.into_iter().filter_map(rate).collect()
    }

    /// The rates as factors of `lr`.
    pub(super) fn factors(self, lr: f64) -> GroupFactors {
        let factor = |rate: Option<f64>| rate.map_or(1.0, |rate| (rate / lr) as f32);
        GroupFactors {
            embeddings: factor(self.embeddings),
            head: factor(self.head),
            norms: factor(self.norms),
            biases: factor(self.biases),
        }
    }

    /// Looks whether a model has the groups.
    ///
    /// Errors: a rate for a head that is the embedding.
    pub fn check(&self, config: &LlamaConfig) -> Result<()> {
        ensure!(
            self.head.is_none() || !config.tie_word_embeddings,
            "--group-lr head: the head of this model is its embedding; give --group-lr embeddings=RATE for both"
        );
        Ok(())
    }

    fn of_mut(&mut self, group: Group) -> &mut Option<f64> {
        match group {
            Group::Embeddings => &mut self.embeddings,
            Group::Head => &mut self.head,
            Group::Norms => &mut self.norms,
            Group::Biases => &mut self.biases,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_by_group() {
        let given: Vec<GroupRate> =
            ["norms=1e-4", "embeddings=0"].map(|text| text.parse().unwrap()).into();
        let rates = GroupRates::resolve(&given).unwrap();
        let factors = GroupFactors { embeddings: 0.0, norms: 10.0, ..GroupFactors::default() };
        assert_eq!(rates.factors(1e-5), factors);
        let again = rates.given();
        assert_eq!(
            again.iter().map(|&rate| String::from(rate)).collect::<Vec<_>>(),
            ["embeddings=0e0", "norms=1e-4"]
        );
        assert_eq!(GroupRates::resolve(&again).unwrap(), rates);
        let twice = [given[0], given[0]];
        assert!(GroupRates::resolve(&twice).unwrap_err().to_string().contains("twice"));
        for wrong in ["norms", "norm=1", "norms=x", "norms=2", "norms=nan", "head=-1"] {
            let told = GroupRate::from_str(wrong).unwrap_err();
            assert!(told.contains("give") || told.contains("expected GROUP"), "{told}");
        }
    }
}
