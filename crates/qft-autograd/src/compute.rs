//! In which numbers linear layers multiply.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// In which numbers a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compute {
    /// INT8 x INT8 -> INT32.
    Int8,
    /// f32 on dequantized operands.
    Float,
}

/// The numbers of each of a linear layer's three products.
///
/// As text: `int8`, `float`, or the names of the products in INT8, joined by `+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Products {
    /// `y = x W^T`; it decides in what format `x` is kept.
    pub forward: Compute,
    /// `dx = dy W`.
    pub input_gradient: Compute,
    /// `dW = dy^T x`.
    pub weight_gradient: Compute,
}

const NAMES: [&str; 3] = ["forward", "input-gradient", "weight-gradient"];

impl Products {
    /// All in INT8.
    pub const INT8: Self = Self::all(Compute::Int8);
    /// All in float.
    pub const FLOAT: Self = Self::all(Compute::Float);

    /// All three in the same numbers.
    pub const fn all(compute: Compute) -> Self {
        Self { forward: compute, input_gradient: compute, weight_gradient: compute }
    }

    fn list(self) -> [Compute; 3] {
        [self.forward, self.input_gradient, self.weight_gradient]
    }
}

impl fmt::Display for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::INT8 => f.pad("int8"),
            Self::FLOAT => f.pad("float"),
            _ => {
                let named = NAMES.iter().zip(self.list());
                let int8 = named.filter(|(_, compute)| *compute == Compute::Int8);
                f.pad(&int8.map(|(name, _)| *name).collect::<Vec<_>>().join("+"))
            }
        }
    }
}

impl FromStr for Products {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "int8" => return Ok(Self::INT8),
            "float" => return Ok(Self::FLOAT),
            _ => {}
        }
        let mut products = Self::FLOAT;
        for name in text.split('+') {
            match name {
                "forward" => products.forward = Compute::Int8,
                "input-gradient" => products.input_gradient = Compute::Int8,
                "weight-gradient" => products.weight_gradient = Compute::Int8,
                _ => {
                    let [forward, input, weight] = NAMES;
                    return Err(format!(
                        "expected int8, float, or products in INT8 joined by +: \
                         {forward}, {input}, {weight}"
                    ));
                }
            }
        }
        Ok(products)
    }
}

impl Serialize for Products {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Products {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_read_as_they_are_written() {
        let one = "input-gradient".parse::<Products>().unwrap();
        assert_eq!(one, Products { input_gradient: Compute::Int8, ..Products::FLOAT });
        for text in ["int8", "float", "forward", "forward+weight-gradient"] {
            assert_eq!(text.parse::<Products>().unwrap().to_string(), text);
        }
        let all = "weight-gradient+forward+input-gradient".parse::<Products>();
        assert_eq!(all.unwrap(), Products::INT8);
        for wrong in ["", "int4", "forward+", "int8+float", "Forward"] {
            assert!(wrong.parse::<Products>().unwrap_err().contains("input-gradient"), "{wrong}");
        }
    }
}
