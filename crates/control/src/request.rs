//! Requests and their responses, one variant each.

use std::collections::BTreeMap;

use idlewatt_protocol::bench::BenchReport;
use idlewatt_protocol::receipt::ReceiptFile;
use idlewatt_protocol::{Price, RequestId, Scope, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::power::Power;
use crate::schedule::{DayHours, ModelFile, Outlook, Program, Schedule, Yield};
use crate::view::{
    ConfigEntry, Doctor, Network, RequestDetail, RequestRow, Sample, Service, Session, Status, Today,
};

/// Everything that can be asked of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// The state now. → [`Response::Status`]
    Status,
    /// Everything found here, and what is missing. → [`Response::Doctor`]
    Doctor,
    /// All services found. → [`Response::Services`]
    Services,
    /// Look for model servers again. → [`Response::Services`]
    Rescan,
    /// Switch sharing of a service on or off; switching on probes it live first. → [`Response::Services`]
    Share {
        /// The service's id, model name, or an unambiguous part of it.
        service: String,
        /// On or off.
        on: bool,
        /// The price, where it is to change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "ts", ts(optional))]
        price: Option<Price>,
    },
    /// All networks joined. → [`Response::Networks`]
    Networks,
    /// Join a hub. Whoever sends this has asked the person. → [`Response::Networks`]
    Join {
        /// `idlewatt://join?…`
        invite: String,
    },
    /// Leave a hub, by id, name or address. → [`Response::Networks`]
    Leave {
        /// Which.
        hub: String,
    },
    /// Stop sharing. → [`Response::Status`]
    Pause(PauseFor),
    /// Share again, as far as the rules allow. → [`Response::Status`]
    Resume,
    /// Resume, and for so long put aside that somebody is here and that it is outside the hours; never a limit, a game or
    /// a pause to come. → [`Response::Status`]
    ShareNow {
        /// 1 to 31 days.
        seconds: u32,
    },
    /// When this machine shares. → [`Response::Schedule`]
    Schedule,
    /// What the policy would say with other settings, which are not kept. → [`Response::Preview`]
    Preview {
        /// Values by key, as text; an empty one is the default.
        settings: BTreeMap<String, String>,
    },
    /// Programs of this account that run now, to choose from for `share.apps`, the likely ones first. → [`Response::Programs`]
    Programs,
    /// Give everything back now: shared requests are ended, what sharing loaded is freed, and nothing is shared until
    /// [`Request::Resume`]. → [`Response::Status`]
    GiveBack,
    /// The last times the GPU was given back, newest first. → [`Response::Yields`]
    Yields {
        /// At most this many, 1 to 1,000.
        limit: u32,
    },
    /// Whether a service may be unloaded although sharing did not load it. → [`Response::Services`]
    MayUnload {
        /// The service's id, model name, or an unambiguous part of it.
        service: String,
        /// Whether it may.
        on: bool,
    },
    /// Whom a service answers; strangers only once `share.strangers` is set. → [`Response::Services`]
    ShareWith {
        /// The service's id, model name, or an unambiguous part of it.
        service: String,
        /// The widest.
        scope: Scope,
    },
    /// Requests served, newest first. → [`Response::Requests`]
    Requests {
        /// At most this many, 1 to 1,000.
        limit: u32,
        /// Only those that started before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "ts", ts(optional))]
        before: Option<UnixMillis>,
    },
    /// One request with its timeline. → [`Response::RequestDetail`]
    RequestDetail {
        /// Which.
        id: RequestId,
    },
    /// A request's receipt, as its hub sent it. → [`Response::Receipt`]
    Receipt {
        /// Which.
        id: RequestId,
    },
    /// Readings since a moment, thinned to at most 600. → [`Response::Samples`]
    Samples {
        /// Since when.
        since: UnixMillis,
    },
    /// What happened in the last stretch of sharing. → [`Response::LastSession`]
    LastSession,
    /// Totals of the last days, today last. → [`Response::Days`]
    Days {
        /// How many, 1 to 366.
        count: u32,
    },
    /// What became of the share windows of the last days, newest first. → [`Response::Hours`]
    Hours {
        /// At most this many days, 1 to 366; there are none of before the first start.
        days: u32,
    },
    /// Power, limits and energy, now and this month. → [`Response::Power`]
    Power,
    /// Keep what `idlewatt bench` measured, and send it to hubs that publish such tables. → [`Response::Published`]
    KeepBench {
        /// What was measured.
        report: Box<BenchReport>,
        /// Send it, signed with this node's key, to every hub joined.
        publish: bool,
    },
    /// Model files on this machine, and how each would be loaded. → [`Response::ModelFiles`]
    ModelFiles,
    /// Run a llama-server of the node's own with one of them, or stop running one. → [`Response::ModelFiles`]
    RunModel {
        /// Its id or name, or an unambiguous part of it; none stops what runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "ts", ts(optional))]
        id: Option<String>,
    },
    /// The API key of a model server that wants one: tried at once, kept in the keyring, never shown. → [`Response::Done`]
    SetServerKey {
        /// The server's address, or a part of its name, such as `lm-studio`.
        server: String,
        /// The key; none forgets it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "ts", ts(optional))]
        key: Option<Secret>,
    },
    /// All settings with their meaning. → [`Response::Config`]
    Config,
    /// Change one setting, live. → [`Response::Config`]
    SetConfig {
        /// Dotted key: `share.idle_after`.
        key: String,
        /// As text; empty resets to the default.
        value: String,
    },
    /// Read the settings file again, after it was edited. → [`Response::Config`]
    ReloadConfig,
    /// The host's own OpenAI endpoint and its key. → [`Response::OwnEndpoint`]
    OwnEndpoint,
    /// A link that opens the control panel once, within ten minutes. → [`Response::Panel`]
    Panel,
    /// The hub of the host's own, beside the engine: start and join it, or stop and leave it. → [`Response::OwnHub`]
    OwnHub {
        /// On or off; as it is, where left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "ts", ts(optional))]
        on: Option<bool>,
    },
    /// An invite to that hub for another device, good once and for a day. → [`Response::HubInvite`]
    InviteToOwnHub,
    /// End the engine: running requests are handed back first. → [`Response::Done`]
    Stop,
}

/// An invite to the host's own hub, in two forms that say the same. Either is a secret until it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct HubInvite {
    /// Opens Idlewatt, or is pasted into it: `idlewatt://join?…`.
    pub invite: String,
    /// Opens the hub's own page in a browser: what a phone scans.
    pub page: String,
    /// The page's address as a QR code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub picture: Option<CodePicture>,
}

/// A QR code as squares of one unit, its quiet margin included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct CodePicture {
    /// Units in width and height.
    pub size: u32,
    /// The dark squares, as the `d` of an SVG path in a view box of that size: `M4 4h1v1h-1z…`.
    pub path: String,
}

/// A hub of the host's own, and the key with which the host's devices use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct OwnHub {
    /// Base URL for any OpenAI SDK.
    pub url: String,
    /// A consumer's key of the host's account.
    pub key: String,
}

/// What nobody but its receiver may see: it is not written out for debugging.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// How long a pause lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "until", rename_all = "snake_case")]
pub enum PauseFor {
    /// Until told otherwise.
    Resumed,
    /// For a time.
    Seconds {
        /// 1 to 31 days.
        seconds: u32,
    },
    /// Until a moment.
    At {
        /// When.
        at: UnixMillis,
    },
    /// Until six in the morning, local time, of the next day.
    Tomorrow,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Response {
    /// The state now.
    Status(Box<Status>),
    /// What is here.
    Doctor(Box<Doctor>),
    /// All services.
    Services(Vec<Service>),
    /// When this machine shares.
    Schedule(Box<Schedule>),
    /// What would happen.
    Preview(Outlook),
    /// All networks.
    Networks(Vec<Network>),
    /// Times the GPU was given back, newest first.
    Yields(Vec<Yield>),
    /// Requests, newest first.
    Requests(Vec<RequestRow>),
    /// One request.
    RequestDetail(Box<RequestDetail>),
    /// A receipt.
    Receipt(Box<ReceiptFile>),
    /// Readings, oldest first.
    Samples(Vec<Sample>),
    /// The last session; `None` before the first.
    LastSession(Option<Box<Session>>),
    /// Days by local date (`2026-11-21`).
    Days(BTreeMap<String, Today>),
    /// Days, newest first.
    Hours(Vec<DayHours>),
    /// Programs that run.
    Programs(Vec<Program>),
    /// Power.
    Power(Box<Power>),
    /// Where a report was published: the pages' addresses.
    Published(Vec<String>),
    /// Model files, by name.
    ModelFiles(Vec<ModelFile>),
    /// Settings.
    Config(Vec<ConfigEntry>),
    /// The host's own endpoint.
    OwnEndpoint {
        /// Base URL for any OpenAI SDK.
        url: String,
        /// Its key.
        key: String,
    },
    /// A link to the control panel.
    Panel {
        /// Good once, for ten minutes.
        url: String,
    },
    /// The host's own hub; `None` while it is off.
    OwnHub(Option<OwnHub>),
    /// An invite to the host's own hub.
    HubInvite(HubInvite),
    /// Done, nothing to say.
    Done,
    /// It failed.
    Error(ControlError),
}
