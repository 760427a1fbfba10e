//! Who may answer whom: the same three words for a request, a key and a service.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far something reaches. Each holds the ones before it, so the narrower of two is the smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One's own nodes only.
    Own,
    /// And those of one's circle.
    #[default]
    Circle,
    /// And those of strangers. A host serves them only after saying so.
    Public,
}

/// Why a text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is own, circle or public")]
pub struct ScopeError;

impl Scope {
    /// As text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Circle => "circle",
            Self::Public => "public",
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Own, Self::Circle, Self::Public].into_iter().find(|it| it.as_str() == text).ok_or(ScopeError)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a node stands, as its host says: parts from wide to narrow, such as `eu` or `eu-de-berlin`. Nobody checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(type = "string"))]
#[serde(try_from = "String", into = "String")]
pub struct Region {
    length: u8,
    bytes: [u8; Self::MOST],
}

/// Why a text is no region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a region is 1 to 16 lower-case letters, digits and hyphens between them, from wide to narrow: `eu`, `eu-de`"
)]
pub struct RegionError;

impl Region {
    const MOST: usize = 16;

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether a place in `narrower` is in this: `eu` holds `eu-de`.
    #[must_use]
    pub fn holds(&self, narrower: &Self) -> bool {
        narrower
            .as_str()
            .strip_prefix(self.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let mut bytes = [0; Self::MOST];
        let place =
            bytes.get_mut(..text.len()).filter(|_| text.split('-').all(is_part)).ok_or(RegionError)?;
        place.copy_from_slice(text.as_bytes());
        Ok(Self { length: u8::try_from(text.len()).map_err(|_| RegionError)?, bytes })
    }
}

impl TryFrom<String> for Region {
    type Error = RegionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.as_str().to_owned()
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
