//! The client of an Idlewatt hub: dials, keeps the session of [`idlewatt_core::session`] going, drives the answers that
//! the [`Host`](crate::Host) gives, and dials again when the session is lost.
//!
//! A connection that is lost ends no answer: it goes on, and the next connection takes it up to the byte.
//!
//! A node that waits for work sets no timer of its own but one: the moment at which a silent hub counts as gone.

mod answer;
mod answers;
mod backoff;
mod connection;
mod dial;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use idlewatt_core::session::{Closed, Introduction, Session};
use idlewatt_protocol::invite::{Invite, MAX_ADDRESSES, check_hub_url};
use idlewatt_protocol::message::{RefuseCode, Welcome};
use idlewatt_protocol::{Nonce, PublicKey};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::host::{NetworkReport, SharedHost};
use answers::{Answers, now};
use backoff::Backoff;
use connection::{Connection, Over, Wire};
use dial::{DialError, Dialler};

pub use dial::is_near;

/// A session that held this long shows that the hub is well: the next loss starts the waits from the beginning.
const STABLE: Duration = Duration::from_secs(30);

/// Who this node is towards hubs.
#[derive(Clone)]
pub struct Identity {
    /// The node's secret key.
    pub key: Arc<SigningKey>,
    /// Name and version of the program: `idlewatt/0.1.0`.
    pub agent: String,
    /// The name that the host gave this node; never taken from the machine.
    pub name: Option<String>,
}

/// A hub that this node has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The network's id on this node; comes back in each [`Ask`](idlewatt_core::work::Ask).
    pub network: String,
    /// The key that the hub must show.
    pub hub_key: PublicKey,
    /// Its addresses, best first: `https`, or `http` to loopback. Tried in turn.
    pub urls: Vec<Url>,
    /// A proxy for `wss`; see [`proxy_for`].
    pub proxy: Option<Url>,
}

/// A first handshake that proved the invite. Hand it to [`run`] to go on in the same connection, or drop it to close.
pub struct Joined {
    /// The hub's key.
    pub hub_key: PublicKey,
    /// What the hub calls itself.
    pub hub_name: String,
    /// The account that this node earns for.
    pub account: String,
    /// The hub's addresses, best first, the invite's own among them.
    pub urls: Vec<Url>,
    /// The one of them that this connection goes to.
    at: Url,
    connection: Box<Connection>,
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined")
            .field("hub_key", &self.hub_key)
            .field("hub_name", &self.hub_name)
            .field("account", &self.account)
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// Why joining failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Another node used the invite.
    #[error("this invite was used by another node")]
    Used,
    /// Its 24 hours are over.
    #[error("this invite is older than 24 hours")]
    Expired,
    /// The hub does not know it.
    #[error("the hub does not know this invite: it is of another hub, or was withdrawn")]
    Foreign,
    /// What answers at the invite's address has another key, or cannot prove the right one.
    #[error("{0}")]
    WrongKey(String),
    /// Nothing usable answers.
    #[error("the hub cannot be reached: {0}")]
    Down(String),
    /// Refused for another reason.
    #[error("the hub refused: {message}")]
    Refused {
        /// For programs.
        code: RefuseCode,
        /// For people.
        message: String,
    },
}

/// Why [`run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The token was cancelled.
    Asked,
    /// The hub refused for good; reported to the host already.
    Refused,
    /// The hub could not prove its key; reported to the host already.
    Distrusted,
}

/// Proves an invite to its hub.
///
/// # Errors
/// When the hub cannot be reached, cannot prove its key, or refuses.
pub async fn join(invite: &Invite, identity: &Identity, proxy: Option<&Url>) -> Result<Joined, JoinError> {
    let mut dialler = Dialler::new(invite.key, proxy.cloned());
    let mut failed = JoinError::Down("the invite names no address".to_owned());
    for hub in &invite.hubs {
        let introduction = identity.introduction(invite.key, Some(invite.token.clone()), 0, String::new());
        match join_at(&mut dialler, hub, introduction).await {
            Ok((connection, welcome)) => return Ok(Joined::of(invite, hub, welcome, connection)),
            // Another machine may have an address that was the hub's; where it is the hub that refuses, it is so everywhere.
            Err(error @ JoinError::Down(_)) if matches!(failed, JoinError::WrongKey(_)) => {
                tracing::debug!(%hub, %error, "no way to the hub");
            }
            Err(error @ (JoinError::Down(_) | JoinError::WrongKey(_))) => {
                tracing::debug!(%hub, %error, "no way to the hub");
                failed = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(failed)
}

async fn join_at(
    dialler: &mut Dialler,
    hub: &Url,
    introduction: Introduction,
) -> Result<(Connection, Welcome), JoinError> {
    let socket = dialler.dial(hub).await.map_err(|error| match error {
        DialError::OtherKey => JoinError::WrongKey(error.to_string()),
        error => JoinError::Down(error.to_string()),
    })?;
    Connection::open(socket, introduction).await.map_err(JoinError::from)
}

impl Joined {
    fn of(invite: &Invite, at: &Url, welcome: Welcome, connection: Connection) -> Self {
        let mut urls = addresses(&welcome);
        let known = invite.hubs.iter().filter(|hub| !urls.contains(hub)).cloned().collect::<Vec<_>>();
        urls.extend(known);
        urls.truncate(MAX_ADDRESSES);
        Self {
            hub_key: invite.key,
            hub_name: called(&welcome),
            account: welcome.account,
            urls,
            at: at.clone(),
            connection: Box::new(connection),
        }
    }
}

/// Keeps a session with a hub until `stop` is cancelled or the hub refuses for good. Dials again by itself: with full
/// jitter from 250 ms, at most 3 s during the first two minutes, then up to 60 s, over all addresses in turn, the one
/// that worked last first. What happens is told to [`Host::report`](crate::Host::report). Cancelling `stop` ends running answers as yielded and waits
/// at most two seconds for their statements; so does a [`Sleep`](crate::host::Sleep) that is coming, and when it is over, the hub is
/// dialled at once.
pub async fn run(
    membership: Membership,
    identity: Identity,
    host: SharedHost,
    joined: Option<Joined>,
    stop: CancellationToken,
) -> Stopped {
    let Membership { network, hub_key, mut urls, proxy } = membership;
    let mut dialler = Dialler::new(hub_key, proxy);
    let mut backoff = Backoff::default();
    let mut sleep = host.sleep();
    let (mut answers, mut first) = match joined {
        Some(joined) => {
            put_first(&mut urls, &joined.at);
            let report = NetworkReport::Connected {
                account: joined.account,
                name: joined.hub_name,
                urls: joined.urls.iter().map(Url::to_string).collect(),
            };
            let Connection { wire, mut session } = *joined.connection;
            session.rename(&network);
            (Answers::new(host.clone(), session), Some((wire, report)))
        }
        None => {
            let introduction = identity.introduction(hub_key, None, 0, network.clone());
            (Answers::new(host.clone(), Session::new(introduction, &now())), None)
        }
    };
    // The first address is the one that is dialled next.
    loop {
        let opened = match first.take() {
            Some(opened) => Ok(opened),
            None => {
                tokio::select! {
                    // The host outlives this.
                    _ = answers.meanwhile(sleep.wait_for(|sleep| !sleep.coming)) => {}
                    () = stop.cancelled() => break,
                }
                host.report(NetworkReport::Connecting);
                tokio::select! {
                    opened = connect(&mut answers, &mut dialler, urls.first()) => opened,
                    () = stop.cancelled() => break,
                }
            }
        };
        let over = match opened {
            Ok((wire, mut report)) => {
                if let NetworkReport::Connected { urls: told, .. } = &mut report {
                    keep_told(&mut urls, told);
                    *told = urls.iter().map(Url::to_string).collect();
                }
                host.report(report);
                let since = Instant::now();
                let over = until_sleep(&mut answers, wire, &host, &stop).await;
                if since.elapsed() >= STABLE {
                    backoff = Backoff::default();
                }
                over
            }
            Err(over) => {
                answers.session.lost(Instant::now());
                let tried = urls.len().min(1);
                urls.rotate_left(tried);
                over
            }
        };
        let at_once = matches!(over, Over::Stopped | Over::Closed(Closed::ClockJumped));
        let why = match over {
            Over::Stopped if stop.is_cancelled() => break,
            Over::Closed(Closed::Refused { code, message }) if !code.is_temporary() => {
                answers.leave().await;
                host.report(NetworkReport::Refused { code, message });
                return Stopped::Refused;
            }
            Over::Closed(Closed::Distrusted(distrust)) => {
                // Another machine has an address now that was the hub's: the one just tried.
                let other = urls.pop();
                urls.retain(|url| Some(url) != other.as_ref());
                if urls.is_empty() {
                    answers.leave().await;
                    host.report(NetworkReport::Distrusted { why: distrust.to_string() });
                    return Stopped::Distrusted;
                }
                distrust.to_string()
            }
            other => other.to_string(),
        };
        tracing::debug!(network, why, "the hub's session is over");
        let wait = if at_once { Duration::ZERO } else { backoff.next(Instant::now(), rand::random()) };
        host.report(NetworkReport::Waiting { why, retry_at: Instant::now() + wait });
        tokio::select! {
            () = answers.meanwhile(tokio::time::sleep(wait)) => {}
            Ok(()) = sleep.changed() => backoff = Backoff::default(),
            () = stop.cancelled() => break,
        }
    }
    answers.leave().await;
    Stopped::Asked
}

/// The proxy that the value of `HTTPS_PROXY` names, if it is one that can be used: `http://HOST:PORT`. Read the
/// environment once, where the process starts.
#[must_use]
pub fn proxy_for(value: Option<&str>) -> Option<Url> {
    value.and_then(|text| Url::parse(text).ok()).filter(|url| url.scheme() == "http" && url.host().is_some())
}

impl Identity {
    fn introduction(
        &self,
        hub_key: PublicKey,
        token: Option<String>,
        posted_through: u64,
        network: String,
    ) -> Introduction {
        Introduction {
            key: self.key.clone(),
            hub_key,
            token,
            agent: self.agent.clone(),
            name: self.name.clone(),
            posted_through,
            nonce: Nonce(rand::random()),
            network,
        }
    }
}

/// Runs the session to the end of its connection; one that ends for a sleep ends as one that is stopped.
async fn until_sleep(answers: &mut Answers, wire: Wire, host: &SharedHost, stop: &CancellationToken) -> Over {
    let mut sleep = host.sleep();
    let goodbye = stop.child_token();
    let over = {
        let mut drive = std::pin::pin!(answers.drive(wire, &goodbye));
        let over = tokio::select! {
            over = &mut drive => Some(over),
            Ok(_) = sleep.wait_for(|sleep| sleep.coming) => None,
        };
        goodbye.cancel();
        match over {
            Some(over) => over,
            None => drive.await,
        }
    };
    if matches!(over, Over::Stopped) {
        answers.leave().await;
    }
    over
}

async fn connect(
    answers: &mut Answers,
    dialler: &mut Dialler,
    url: Option<&Url>,
) -> Result<(Wire, NetworkReport), Over> {
    let Some(url) = url else { return Err(Over::Lost("the hub has no address".to_owned())) };
    let dialled = answers.meanwhile(dialler.dial(url)).await;
    let socket = dialled.map_err(|error| Over::Lost(error.to_string()))?;
    let host = answers.host.clone();
    let through = answers.meanwhile(async { host.posted_through().await }).await;
    let (wire, welcome) = answers.enter(socket, through).await?;
    let urls = addresses(&welcome).iter().map(Url::to_string).collect();
    let name = called(&welcome);
    Ok((wire, NetworkReport::Connected { account: welcome.account, name, urls }))
}

/// The hub's name as a foreign word that goes into sentences and tables: short, and nothing that moves a cursor.
fn called(welcome: &Welcome) -> String {
    let name: String = welcome.hub_name.chars().filter(|it| !it.is_control()).take(40).collect();
    if name.trim().is_empty() { "a hub without a name".to_owned() } else { name.trim().to_owned() }
}

/// The addresses that a hub names of itself, as far as they may be dialled.
fn addresses(welcome: &Welcome) -> Vec<Url> {
    let parsed = welcome.urls.iter().take(MAX_ADDRESSES).filter_map(|url| Url::parse(url).ok());
    parsed.filter(|url| check_hub_url(url).is_ok()).collect()
}

/// The first address, which has just worked, stays first; then come those that the hub told. Others are of use only while
/// the hub is reached at none that it tells.
fn keep_told(urls: &mut Vec<Url>, told: &[String]) {
    let told: Vec<Url> = told.iter().filter_map(|url| Url::parse(url).ok()).collect();
    let known = std::mem::replace(urls, told);
    let Some(worked) = known.first() else { return };
    if !urls.contains(worked) {
        let untold = known.iter().filter(|url| !urls.contains(url)).cloned().collect::<Vec<_>>();
        urls.extend(untold);
    }
    put_first(urls, worked);
    urls.truncate(MAX_ADDRESSES);
}

fn put_first(urls: &mut Vec<Url>, first: &Url) {
    urls.retain(|url| url != first);
    urls.insert(0, first.clone());
}

impl From<Over> for JoinError {
    fn from(over: Over) -> Self {
        match over {
            Over::Closed(Closed::Refused { code, message }) => match code {
                RefuseCode::InviteUsed => Self::Used,
                RefuseCode::InviteExpired => Self::Expired,
                RefuseCode::InviteUnknown => Self::Foreign,
                _ => Self::Refused { code, message },
            },
            Over::Closed(Closed::Distrusted(distrust)) => Self::WrongKey(distrust.to_string()),
            other => Self::Down(other.to_string()),
        }
    }
}
