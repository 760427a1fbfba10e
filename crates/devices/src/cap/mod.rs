//! The limit in a card itself: who may set it, how, and how the card's own one comes back.
//!
//! [`Caps`] is an engine's door: it sets a limit by itself where it has the right to (root in a container), through
//! `idlewatt-helper` where that is installed, and says why not where neither is so. Whoever sets, [`Setter`] saves the
//! card's own limit on disk before it changes it, and gives it back when it is no longer wanted, after a crash included.
//!
//! Not here: which cap is wanted, and how it is held on a card that takes no limit (`idlewatt-core`).

mod claim;
mod client;
mod error;
#[cfg(target_os = "linux")]
mod hwmon;
mod nvml;
mod originals;
mod setter;
pub mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;

use idlewatt_core::device::LimitRange;
use idlewatt_protocol::Milliwatts;
use serde::{Deserialize, Serialize};

pub use error::CapError;
pub use setter::Setter;

use crate::Places;
use claim::{Claim, Machine};
use client::Client;

/// Where the helper listens on Linux; its folder lets in the group `idlewatt` only.
pub const HELPER_SOCKET: &str = "/run/idlewatt/helper.sock";

/// Where the helper listens on Windows.
pub const HELPER_PIPE: &str = r"\\.\pipe\idlewatt-helper";

/// Where limits are set from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapPlaces {
    /// Where the cards are.
    pub cards: Places,
    /// Where `idlewatt-helper` listens; `None` never asks it (`power.helper` is `off`).
    pub helper: Option<PathBuf>,
    /// The folder in which the cards' own limits are kept while this process itself holds others: the home's data folder.
    pub state: PathBuf,
}

impl CapPlaces {
    /// The helper's usual place.
    #[must_use]
    pub fn usual_helper() -> PathBuf {
        PathBuf::from(if cfg!(windows) { HELPER_PIPE } else { HELPER_SOCKET })
    }
}

/// A card's limit as its driver tells it. Whatever it does not tell is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardLimit {
    /// As in [`idlewatt_core::device::GpuReading::id`].
    pub id: String,
    /// Product name.
    pub name: String,
    /// In force; `None` where none is, or where it is not told.
    pub limit_mw: Option<Milliwatts>,
    /// The limit that the card was made with.
    pub default_mw: Option<Milliwatts>,
    /// Lowest that the card takes.
    pub min_mw: Option<Milliwatts>,
    /// Highest that the card takes.
    pub max_mw: Option<Milliwatts>,
    /// Powered down by the system, and not woken to be asked.
    pub asleep: bool,
}

impl CardLimit {
    /// A card that tells nothing but what it is.
    fn silent(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            limit_mw: None,
            default_mw: None,
            min_mw: None,
            max_mw: None,
            asleep: false,
        }
    }

    /// What the card takes, where it tells.
    #[must_use]
    pub fn range(&self) -> Option<LimitRange> {
        Some(LimitRange { min: self.min_mw?, max: self.max_mw? })
    }
}

/// A card, and who can set its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardCap {
    /// The card's limit now.
    pub card: CardLimit,
    /// How a limit would be set, or why none can be.
    pub way: Result<Way, CapError>,
}

/// How a card's limit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By this process, which has the right to.
    Direct,
    /// By `idlewatt-helper`.
    Helper,
}

/// Every card's own limit, as this engine may set it. Calls block for milliseconds, two seconds at most where the helper
/// is silent: not for an async thread.
///
/// Dropping it gives every card its own limit back. What a killed process left is given back by the helper, or by the
/// next `Caps` with the same [`CapPlaces::state`].
pub struct Caps {
    setter: Setter,
    client: Option<Client>,
    machine: Machine,
    claims: BTreeMap<String, Claim>,
    /// Why this process could not set a limit, when it last tried.
    refused: BTreeMap<String, CapError>,
    /// What was set last, and how.
    wanted: BTreeMap<String, (Milliwatts, Way)>,
}

impl Caps {
    /// Gives back what an earlier process left, as far as the cards answer now; [`Caps::cards`] tries the rest again.
    #[must_use]
    pub fn new(places: &CapPlaces) -> Self {
        let mut setter = Setter::new(&places.cards, &places.state);
        restored(setter.restore_all());
        Self {
            setter,
            client: places.helper.as_deref().map(Client::new),
            machine: Machine::of(&places.cards),
            claims: BTreeMap::new(),
            refused: BTreeMap::new(),
            wanted: BTreeMap::new(),
        }
    }

    /// Every card that has a power limit or could have one, and how it can be set now. For once a minute, and when
    /// something changed; a card that sleeps is not woken.
    pub fn cards(&mut self) -> Vec<CardCap> {
        restored(self.setter.restore_orphans(|card| self.claims.contains_key(card)));
        let helper = self.client.as_mut().filter(|it| it.is_installed()).map(Client::list);
        let cards = self.setter.cards();
        cards.into_iter().map(|card| CardCap { way: self.way(&card, helper.as_ref()), card }).collect()
    }

    fn way(
        &self,
        card: &CardLimit,
        helper: Option<&Result<Vec<wire::Card>, CapError>>,
    ) -> Result<Way, CapError> {
        if !self.claims.contains_key(&card.id) {
            self.machine.is_free(&card.id)?;
        }
        if card.asleep {
            return Err(CapError::Asleep);
        }
        card.range().ok_or(CapError::NotSupported)?;
        match helper {
            _ if self.setter.holds(&card.id) => Ok(Way::Direct),
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(known)) => {
                let known = known.iter().find(|it| it.limit.id == card.id);
                let known = known.ok_or_else(|| CapError::UnknownCard { gpu: card.id.clone() })?;
                known.holder.clone().map_or(Ok(Way::Helper), |by| Err(CapError::Taken { by }))
            }
            None if !may_set() => Err(CapError::NoPermission),
            None => self.refused.get(&card.id).cloned().map_or(Ok(Way::Direct), Err),
        }
    }

    /// Takes a card for this engine: no other on this machine governs it until [`Caps::restore`]. Whoever governs a card
    /// that takes no limit calls this; [`Caps::set`] does it by itself.
    ///
    /// # Errors
    /// [`CapError::Taken`] names who governs it.
    pub fn claim(&mut self, gpu: &str) -> Result<(), CapError> {
        if !self.claims.contains_key(gpu) {
            let claim = self.machine.claim(gpu)?;
            self.claims.insert(gpu.to_owned(), claim);
        }
        Ok(())
    }

    /// Sets a card's limit, and gives back what the card then keeps to: `limit` in whole watts, rounded down. It is written
    /// only where the card does not keep to it already.
    ///
    /// # Errors
    /// Any of [`CapError`]; the card is then as it was, or has its own limit.
    pub fn set(&mut self, gpu: &str, limit: Milliwatts) -> Result<Milliwatts, CapError> {
        self.claim(gpu)?;
        let before = self.wanted.remove(gpu);
        // One way a card: what this process holds, the helper must not take for the card's own.
        let client = self.client.as_mut().filter(|it| it.is_installed() && !self.setter.holds(gpu));
        let (applied, way) = match client {
            Some(client) => (client.set(gpu, limit), Way::Helper),
            None if may_set() => (self.setter.set(gpu, limit), Way::Direct),
            None => (Err(CapError::NoPermission), Way::Direct),
        };
        match &applied {
            Ok(_) => {
                self.refused.remove(gpu);
                self.wanted.insert(gpu.to_owned(), (limit, way));
            }
            Err(error) => {
                if matches!(error, CapError::NoPermission | CapError::NotSupported) && way == Way::Direct {
                    self.refused.insert(gpu.to_owned(), error.clone());
                }
                self.wanted.extend(before.map(|it| (gpu.to_owned(), it)));
            }
        }
        applied
    }

    /// Sets every limit again that a card lost: its driver was loaded again, the helper was started again, the host's own
    /// tools set another. For once a second while limits are held; without any it does nothing. Gives back those that are
    /// not held now, and are tried again by the next call.
    pub fn keep(&mut self) -> Vec<(String, CapError)> {
        let wanted = self.wanted.clone();
        let kept = wanted.into_iter().map(|(gpu, (limit, _))| (self.set(&gpu, limit), gpu));
        kept.filter_map(|(kept, gpu)| Some((gpu, kept.err()?))).collect()
    }

    /// Gives a card its own limit back, and the card to whoever wants to govern it.
    ///
    /// # Errors
    /// When the card does not take it now. It stays to be given back: by the helper, or by [`Caps::cards`].
    pub fn restore(&mut self, gpu: &str) -> Result<(), CapError> {
        let restored = match self.wanted.remove(gpu) {
            Some((_, Way::Helper)) => self.client.as_mut().map_or(Ok(()), |client| client.restore(gpu)),
            _ => self.setter.restore(gpu),
        };
        self.claims.remove(gpu);
        restored
    }

    /// [`Caps::restore`] for every card that this engine took.
    ///
    /// # Errors
    /// The first; all are tried.
    pub fn restore_all(&mut self) -> Result<(), CapError> {
        let cards: Vec<String> = self.claims.keys().cloned().collect();
        cards.iter().map(|card| self.restore(card)).fold(Ok(()), Result::and)
    }
}

impl Drop for Caps {
    fn drop(&mut self) {
        if let Err(error) = self.restore_all() {
            tracing::warn!(%error, "a card did not get its own limit back; the next start tries again");
        }
    }
}

fn restored(left: Result<usize, CapError>) {
    if let Err(error) = left {
        tracing::warn!(%error, "what an earlier run saved is not given back");
    }
}

/// Whether this process may try. The drivers themselves tell only when asked to set.
fn may_set() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    return false;
}
