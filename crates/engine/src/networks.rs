//! The networks this node is in: joining and leaving, one task each that keeps the connection, and how each stands.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use idlewatt_control::{Code, ControlError, Network, NetworkState};
use idlewatt_networks::host::NetworkReport;
use idlewatt_networks::hub::{self, Identity, JoinError, Joined, Membership};
use idlewatt_protocol::UnixMillis;
use idlewatt_protocol::invite::{Invite, InviteError, check_hub_url};
use idlewatt_store::NetworkRow;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::clock;
use crate::node::{Known, Node, lock};
use crate::problem::{of_store, sentence};
use crate::serving::NetworkHost;

/// What this program calls itself towards hubs.
const AGENT: &str = concat!("idlewatt/", env!("CARGO_PKG_VERSION"));

/// All networks joined, by id.
#[derive(Debug)]
pub(crate) struct Networks {
    members: Mutex<BTreeMap<String, Member>>,
    /// How many of them are connected.
    connected: watch::Sender<usize>,
    tasks: TaskTracker,
    /// From `HTTPS_PROXY`, read once.
    proxy: Option<Url>,
}

#[derive(Debug)]
struct Member {
    row: NetworkRow,
    state: NetworkState,
    reason: Option<String>,
    since: UnixMillis,
    stop: CancellationToken,
}

impl Networks {
    pub(crate) fn remembered(rows: Vec<NetworkRow>, proxy: Option<Url>) -> Self {
        let members = rows.into_iter().map(|row| (row.id.clone(), Member::new(row))).collect();
        Self {
            members: Mutex::new(members),
            connected: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            proxy,
        }
    }

    pub(crate) fn joined_and_connected(&self) -> (usize, usize) {
        let members = lock(&self.members);
        let connected = members.values().filter(|it| it.state == NetworkState::Connected);
        (members.len(), connected.count())
    }

    /// Waits until no network is connected any more.
    pub(crate) async fn left_all(&self) {
        // The sender is this one's.
        drop(self.connected.subscribe().wait_for(|connected| *connected == 0).await);
    }

    /// How many networks are connected is counted anew.
    fn count(&self) {
        let (_, connected) = self.joined_and_connected();
        self.connected.send_replace(connected);
    }

    /// Names, of the connected ones where there are any.
    pub(crate) fn names(&self) -> Vec<String> {
        let members = lock(&self.members);
        let connected = |it: &&Member| it.state == NetworkState::Connected;
        let any = members.values().any(|it| connected(&it));
        members.values().filter(|it| !any || connected(it)).map(|it| it.row.name.clone()).collect()
    }

    /// The hubs among them, those that are connected first.
    pub(crate) fn hubs(&self) -> Vec<NetworkRow> {
        let members = lock(&self.members);
        let mut hubs: Vec<&Member> = members.values().filter(|it| it.row.kind == "hub").collect();
        hubs.sort_by_key(|it| it.state != NetworkState::Connected);
        hubs.into_iter().map(|it| it.row.clone()).collect()
    }

    /// What is kept of each.
    pub(crate) fn rows(&self) -> Vec<NetworkRow> {
        lock(&self.members).values().map(|it| it.row.clone()).collect()
    }

    /// The network that this text means: its id, name or address.
    pub(crate) fn meant(&self, text: &str) -> Option<NetworkRow> {
        let members = lock(&self.members);
        let text = text.trim_end_matches('/');
        let is = |row: &NetworkRow| {
            row.id == text || row.name == text || row.urls.iter().any(|url| url.trim_end_matches('/') == text)
        };
        members.values().map(|it| &it.row).find(|row| is(row)).cloned()
    }

    /// Ends every connection and waits until the networks were told.
    pub(crate) async fn close(&self) {
        lock(&self.members).values().for_each(|it| it.stop.cancel());
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Member {
    fn new(row: NetworkRow) -> Self {
        Self {
            row,
            state: NetworkState::Connecting,
            reason: None,
            since: clock::now().unix(),
            stop: CancellationToken::new(),
        }
    }
}

impl Node {
    /// Proves an invite, keeps the network and goes on in the same connection. Gives the network's id.
    pub(crate) async fn join(self: &Arc<Self>, invite: &str) -> Result<String, ControlError> {
        let invite: Invite = invite.parse().map_err(|error| bad_invite(&error))?;
        let who = self.who()?;
        let joined =
            hub::join(&invite, &who, self.networks.proxy.as_ref()).await.map_err(|it| not_joined(&it))?;
        let row = NetworkRow {
            // Of the key, so that joining again goes on with the same books.
            id: joined.hub_key.short(),
            kind: "hub".to_owned(),
            name: joined.hub_name.clone(),
            urls: joined.urls.iter().map(Url::to_string).collect(),
            key: joined.hub_key,
            account: Some(joined.account.clone()),
            joined: clock::now().unix(),
        };
        self.store.put_network(row.clone()).await.map_err(|error| of_store(&error))?;
        tracing::info!(network = %row.id, "joined");
        let id = row.id.clone();
        self.enter(row, Some(joined));
        Ok(id)
    }

    /// Forgets a network and ends its connection.
    pub(crate) async fn leave(self: &Arc<Self>, hub: &str) -> Result<(), ControlError> {
        let row = self.networks.meant(hub).ok_or_else(|| {
            ControlError::new(
                Code::NotFound,
                format!("This node is in no network {hub:?}."),
                "Nothing was left.",
                match self.networks.names() {
                    names if names.is_empty() => "It is in none.".to_owned(),
                    names => format!("It is in: {}.", names.join(", ")),
                },
            )
        })?;
        self.store.remove_network(&row.id).await.map_err(|error| of_store(&error))?;
        if let Some(member) = lock(&self.networks.members).remove(&row.id) {
            member.stop.cancel();
        }
        self.give_key_back(row);
        self.networks.count();
        self.decide();
        self.offer_changed();
        Ok(())
    }

    /// Connects to every network that was kept, once it is known who this node is.
    pub(crate) fn enter_all(self: &Arc<Self>) {
        for row in self.networks.rows() {
            self.enter(row, None);
        }
    }

    fn enter(self: &Arc<Self>, row: NetworkRow, joined: Option<Joined>) {
        let Ok(who) = self.who() else { return };
        let urls = row.urls.iter().filter_map(|url| Url::parse(url).ok());
        let membership = Membership {
            network: row.id.clone(),
            hub_key: row.key,
            urls: urls.filter(|url| check_hub_url(url).is_ok()).collect(),
            proxy: self.networks.proxy.clone(),
        };
        let mut member = Member::new(row);
        if joined.is_some() {
            // The handshake is done; the session goes on in the same connection.
            member.state = NetworkState::Connected;
        }
        let stop = member.stop.clone();
        let host = Arc::new(NetworkHost { node: Arc::clone(self), network: membership.network.clone() });
        // Joining again replaces the connection there was.
        if let Some(old) = lock(&self.networks.members).insert(membership.network.clone(), member) {
            old.stop.cancel();
        }
        self.networks.count();
        self.networks.tasks.spawn(hub::run(membership, who, host, joined, stop));
        self.decide();
        self.offer_changed();
    }

    fn who(&self) -> Result<Identity, ControlError> {
        let known: Option<Known> = self.identity.borrow().clone();
        let known = known.ok_or_else(|| {
            ControlError::new(
                Code::KeyringLocked,
                "This node's key is not there yet.",
                "A node proves who it is with its key, and the keyring has not given it.",
                "Unlock the keyring, then try again.",
            )
        })?;
        Ok(Identity { key: known.key, agent: AGENT.to_owned(), name: None })
    }

    /// A network's connection stands otherwise than before.
    pub(crate) fn network_reported(self: &Arc<Self>, network: &str, report: NetworkReport) {
        let mut keep = None;
        if let Some(member) = lock(&self.networks.members).get_mut(network) {
            if member.state == NetworkState::Waiting && report == NetworkReport::Connecting {
                // One more attempt: screens go on to show since when it is away, and why.
                return;
            }
            let (state, reason) = match report {
                NetworkReport::Connecting => (NetworkState::Connecting, None),
                NetworkReport::Connected { account, name, urls } => {
                    let before = member.row.clone();
                    member.row.account = Some(account);
                    member.row.name = name;
                    if !urls.is_empty() {
                        member.row.urls = urls;
                    }
                    keep = (before != member.row).then(|| member.row.clone());
                    (NetworkState::Connected, None)
                }
                NetworkReport::Waiting { why, .. } => (NetworkState::Waiting, Some(why)),
                NetworkReport::Refused { message, .. } => (NetworkState::Refused, Some(message)),
                NetworkReport::Distrusted { why } => (NetworkState::Refused, Some(why)),
            };
            if member.state != state {
                member.since = clock::now().unix();
                tracing::info!(network, ?state, reason, "network");
            }
            member.state = state;
            member.reason = reason;
        }
        self.networks.count();
        if let Some(row) = keep {
            drop(self.store.put_network(row));
        }
        self.decide();
        self.shown.notify_one();
    }

    /// What screens show, with today's figures.
    pub(crate) async fn network_views(&self) -> Vec<Network> {
        let day = clock::now().day();
        let last = self.store.last_requests().await.unwrap_or_default();
        let mut views: Vec<Network> = lock(&self.networks.members).values().map(Member::view).collect();
        for view in &mut views {
            let today = self.store.network_day(&view.id, &day).await.unwrap_or_default();
            view.requests_today = today.requests;
            view.earned_today_ucr = today.earned_ucr;
            view.unsettled = self.store.unsettled_count(&view.id).await.unwrap_or_default();
            view.last_request = last.get(&view.id).copied();
        }
        views
    }
}

impl Member {
    fn view(&self) -> Network {
        Network {
            id: self.row.id.clone(),
            kind: self.row.kind.clone(),
            name: self.row.name.clone(),
            url: self.row.urls.first().cloned().unwrap_or_default(),
            account: self.row.account.clone(),
            state: self.state,
            reason: self.reason.clone(),
            since: self.since,
            last_request: None,
            requests_today: 0,
            earned_today_ucr: idlewatt_protocol::MicroCredits::ZERO,
            unsettled: 0,
        }
    }
}

fn bad_invite(error: &InviteError) -> ControlError {
    ControlError::new(
        Code::BadInvite,
        "This invite cannot be read.",
        sentence(&error.to_string()),
        "Copy the whole link again, or ask for a new one.",
    )
}

fn not_joined(error: &JoinError) -> ControlError {
    let (code, why, action) = match error {
        JoinError::Used => (
            Code::InviteUsed,
            "An invite lets one node in.",
            "Ask for an invite of your own: `idlewatt-hub invite create` makes one.",
        ),
        JoinError::Expired => (Code::InviteExpired, "Invites are good for a day.", "Ask for a new one."),
        JoinError::Foreign => {
            (Code::InviteForeign, "Only the hub that made an invite honours it.", "Ask for a new one.")
        }
        JoinError::WrongKey(_) => (
            Code::WrongHubKey,
            "Something else answers at the hub's address. Nothing was told to it.",
            "Ask whoever invited you whether the hub moved or was set up anew; then ask for a new invite.",
        ),
        JoinError::Down(_) => (
            Code::HubDown,
            "The invite is not used up: it stays good for its 24 hours.",
            "Check that the hub runs and that this machine reaches it, then try again.",
        ),
        JoinError::Refused { .. } => {
            (Code::HubDown, "The hub answered, and does not let this node in.", "Ask whoever runs the hub.")
        }
    };
    ControlError::new(code, sentence(&error.to_string()), why, action)
}
