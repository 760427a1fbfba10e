//! Who may use the admin page: whoever brings a code that the operator's command line made. In memory only, and gone when
//! the hub stops.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use idlewatt_protocol::Digest;
use url::Url;

use super::keys::secret;
use super::{Store, StoreError};

/// A code opens the page once, within this time.
pub const CODE_LIFE: Duration = Duration::from_secs(10 * 60);
/// The page stays open for this long.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Most of either at a time; the oldest go first.
const MOST: usize = 32;

/// Secrets, by their hash, with their end.
#[derive(Debug, Default)]
struct Until(HashMap<Digest, Instant>);

impl Until {
    fn make(&mut self, life: Duration) -> String {
        let now = Instant::now();
        self.0.retain(|_, end| *end > now);
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, end)| **end).map(|(hash, _)| *hash)
        {
            self.0.remove(&oldest);
        }
        let made = secret();
        self.0.insert(Digest::of(made.as_bytes()), now + life);
        made
    }

    fn take(&mut self, secret: &str) -> bool {
        self.0.remove(&Digest::of(secret.as_bytes())).is_some_and(|end| end > Instant::now())
    }

    fn has(&self, secret: &str) -> bool {
        self.0.get(&Digest::of(secret.as_bytes())).is_some_and(|end| *end > Instant::now())
    }
}

/// Codes and sessions of a hub that serves.
#[derive(Debug, Default)]
pub(super) struct Admins {
    /// Where this machine finds the hub; unset where none serves.
    near: OnceLock<Url>,
    codes: Mutex<Until>,
    sessions: Mutex<Until>,
}

impl Store {
    /// The hub serves this machine there.
    pub fn serves_at(&self, near: Url) {
        // It is told once.
        let _ = self.0.state.admins.near.set(near);
    }

    /// The admin page's address with a fresh code behind the `#`, good once and for [`CODE_LIFE`].
    ///
    /// # Errors
    /// When no hub serves this folder.
    pub fn admin_link(&self) -> Result<Url, StoreError> {
        let mut link = self.0.state.admins.near.get().cloned().ok_or(StoreError::NotServing)?;
        link.set_path("/admin");
        link.set_fragment(Some(&format!("code={}", lock(&self.0.state.admins.codes).make(CODE_LIFE))));
        Ok(link)
    }

    /// Exchanges a code for the secret of a session; `None` where it is none, or was used.
    #[must_use]
    pub fn open_admin(&self, code: &str) -> Option<String> {
        let admins = &self.0.state.admins;
        lock(&admins.codes).take(code).then(|| lock(&admins.sessions).make(SESSION_LIFE))
    }

    /// Whether this is the secret of a session.
    #[must_use]
    pub fn is_admin(&self, session: &str) -> bool {
        lock(&self.0.state.admins.sessions).has(session)
    }

    /// Ends a session.
    pub fn close_admin(&self, session: &str) {
        lock(&self.0.state.admins.sessions).take(session);
    }
}

fn lock(until: &Mutex<Until>) -> MutexGuard<'_, Until> {
    until.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_good_until_it_is_taken_or_its_time_is_over() {
        let mut until = Until::default();
        let (one, over) = (until.make(CODE_LIFE), until.make(Duration::ZERO));
        assert!(until.has(&one) && !until.has(&over) && !until.has(""));
        assert!(!until.take(&over));
        assert!(until.take(&one));
        assert!(!until.take(&one) && !until.has(&one));
    }

    #[test]
    fn whoever_makes_many_pushes_out_the_oldest() {
        let mut until = Until::default();
        let first = until.make(CODE_LIFE);
        let others: Vec<String> = (0..MOST).map(|_| until.make(CODE_LIFE)).collect();
        assert!(!until.has(&first) && others.iter().all(|it| until.has(it)));
    }
}
