//! What a screen is told without asking.

use serde::{Deserialize, Serialize};

use crate::view::{Network, RequestRow, Sample, Service, Status};

/// One change. A listener that missed some asks for the whole again ([`Event::Resync`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Event {
    /// The whole status, on every change of state, at most once a second otherwise.
    Status(Box<Status>),
    /// A request began, went on or ended.
    Request(Box<RequestRow>),
    /// A reading of power and temperature.
    Sample(Sample),
    /// All services, after one changed.
    Services(Vec<Service>),
    /// All networks, after one changed.
    Networks(Vec<Network>),
    /// Events were lost: ask again for what is shown.
    Resync,
}
