//! Names of accounts and how far they may owe.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use idlewatt_protocol::MicroCredits;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ISSUANCE: &str = "issuance";
const FEES: &str = "fees";

/// The name of an account: 1 to 64 characters of `a–z A–Z 0–9 . _ - @`, the first a letter or digit. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountName(Arc<str>);

/// Why a text is no account name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no account name: use 1 to 64 letters, digits and . _ - @, the first a letter or digit")]
pub struct AccountNameError(String);

impl AccountName {
    /// The account that grants come from, the only one without a limit.
    #[must_use]
    pub fn issuance() -> Self {
        Self(ISSUANCE.into())
    }

    /// The account that the hub's fees go to.
    #[must_use]
    pub fn fees() -> Self {
        Self(FEES.into())
    }

    /// Whether it belongs to the hub, so that no person, key or node may have it.
    #[must_use]
    pub fn is_hubs_own(&self) -> bool {
        matches!(self.as_str(), ISSUANCE | FEES)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = AccountNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if good { Ok(Self(text.into())) } else { Err(AccountNameError(text.chars().take(64).collect())) }
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for AccountName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AccountName {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(de)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How far below zero a balance may fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Down to minus this; never negative itself.
    Overdraft(MicroCredits),
    /// Without limit: `issuance`.
    None,
}
