//! Sets limits for a process that has the right to, and gives the cards' own ones back.

use std::path::Path;

use idlewatt_protocol::Milliwatts;

#[cfg(target_os = "linux")]
use super::hwmon::Hwmon;
use super::nvml::Nvidia;
use super::originals::Originals;
use super::{CapError, CardLimit};
use crate::Places;

/// One vendor's limits. Zero is no limit, where a card can be without.
pub(super) trait Limits: Send {
    /// Every card of this vendor; one that sleeps is not woken.
    fn cards(&mut self) -> Vec<CardLimit>;

    /// Writes a limit into a card.
    fn write(&mut self, card: &str, limit: Milliwatts) -> Result<(), CapError>;

    /// No limit is held: what was kept open for that may be closed.
    fn rest(&mut self) {}
}

/// Sets limits, each card's own one saved first. One process a machine may do so, and one folder keeps what it saved;
/// a second one is refused ([`CapError::Taken`]).
pub struct Setter {
    vendors: Vec<Box<dyn Limits>>,
    originals: Originals,
}

impl Setter {
    /// Changes nothing; [`Setter::restore_all`] gives back what an earlier process left in `state`.
    #[must_use]
    pub fn new(places: &Places, state: &Path) -> Self {
        let vendors: Vec<Box<dyn Limits>> = vec![
            Box::new(Nvidia::new(places)),
            #[cfg(target_os = "linux")]
            Box::new(Hwmon::new(places)),
        ];
        Self { vendors, originals: Originals::new(state) }
    }

    /// Every card that has a limit or could have one.
    pub fn cards(&mut self) -> Vec<CardLimit> {
        self.look().into_iter().map(|(_, card)| card).collect()
    }

    /// One card.
    ///
    /// # Errors
    /// [`CapError::UnknownCard`]
    pub fn card(&mut self, id: &str) -> Result<CardLimit, CapError> {
        self.find(id).map(|(_, card)| card)
    }

    /// Whether a card has a limit from here, or still one from an earlier process.
    #[must_use]
    pub fn holds(&self, card: &str) -> bool {
        self.originals.of(card).is_some()
    }

    /// A card's own limit while it has another; zero where it had none.
    #[must_use]
    pub fn original(&self, card: &str) -> Option<Milliwatts> {
        self.originals.of(card)
    }

    /// Sets a card's limit within its own range, in whole watts rounded down, and gives back what it then keeps to.
    ///
    /// Every driver counts in watts or finer, and some round to the nearest: above what was asked for.
    ///
    /// # Errors
    /// When the card's own limit cannot be saved, or the card does not take the limit.
    pub fn set(&mut self, id: &str, limit: Milliwatts) -> Result<Milliwatts, CapError> {
        let (vendor, card) = self.find(id)?;
        if card.asleep {
            return Err(CapError::Asleep);
        }
        let range = card.range().ok_or(CapError::NotSupported)?;
        if limit < range.min || limit > range.max {
            return Err(CapError::OutOfRange { asked_mw: limit, min_mw: range.min, max_mw: range.max });
        }
        let limit = Milliwatts(limit.0 / 1000 * 1000).max(range.min);
        let known = self.originals.of(id).is_some();
        if known && card.limit_mw == Some(limit) {
            return Ok(limit);
        }
        self.originals.save(id, card.limit_mw.unwrap_or(Milliwatts::ZERO))?;
        let written = self.vendors[vendor].write(id, limit);
        if let Err(error) = written {
            // Nothing was changed, so there is nothing to give back.
            if !known {
                self.originals.forget(id)?;
            }
            return Err(error);
        }
        tracing::info!(card = id, limit_mw = limit.0, "limit set");
        Ok(self.card(id)?.limit_mw.unwrap_or(limit))
    }

    /// Gives a card its own limit back. Nothing to do where it has it.
    ///
    /// # Errors
    /// When the card does not take it now: it stays to be given back.
    pub fn restore(&mut self, id: &str) -> Result<(), CapError> {
        self.originals.look()?;
        let Some(original) = self.originals.of(id) else { return Ok(()) };
        let (vendor, card) = self.find(id)?;
        if card.limit_mw != Some(original).filter(|it| *it != Milliwatts::ZERO) || card.asleep {
            self.vendors[vendor].write(id, original)?;
        }
        tracing::info!(card = id, limit_mw = original.0, "the card's own limit is back");
        self.originals.forget(id)?;
        if self.originals.is_empty() {
            self.vendors[vendor].rest();
        }
        Ok(())
    }

    /// [`Setter::restore`] for every card; gives back how many still have another limit than their own.
    ///
    /// # Errors
    /// When what an earlier process saved cannot be read, or is another's.
    pub fn restore_all(&mut self) -> Result<usize, CapError> {
        self.restore_orphans(|_| false)
    }

    /// [`Setter::restore`] for every card that nobody owns; gives back how many of them still have another limit than
    /// their own.
    ///
    /// # Errors
    /// When what an earlier process saved cannot be read, or is another's.
    pub fn restore_orphans(&mut self, owned: impl Fn(&str) -> bool) -> Result<usize, CapError> {
        self.originals.look()?;
        let mut left = 0;
        for card in self.originals.cards().into_iter().filter(|card| !owned(card)) {
            if let Err(error) = self.restore(&card) {
                tracing::warn!(%card, %error, "the card does not have its own limit yet");
                left += 1;
            }
        }
        Ok(left)
    }

    fn find(&mut self, id: &str) -> Result<(usize, CardLimit), CapError> {
        let found = self.look().into_iter().find(|(_, card)| card.id == id);
        found.ok_or_else(|| CapError::UnknownCard { gpu: id.to_owned() })
    }

    /// Every card, with which vendor's it is.
    fn look(&mut self) -> Vec<(usize, CardLimit)> {
        let mut found = Vec::new();
        for (vendor, limits) in self.vendors.iter_mut().enumerate() {
            found.extend(limits.cards().into_iter().map(|card| (vendor, card)));
            if self.originals.is_empty() {
                limits.rest();
            }
        }
        for (_, card) in found.iter_mut().filter(|(_, card)| card.min_mw.is_some() && card.max_mw.is_none()) {
            // A driver that does not tell the highest limit is never asked for more than the card had.
            let own = self.originals.of(&card.id).filter(|it| *it != Milliwatts::ZERO);
            card.max_mw = own.or(card.limit_mw);
        }
        found
    }
}
