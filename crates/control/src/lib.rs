//! The one door: what the window, the tray, the command line and the tests say to a running engine.
//!
//! One [`Request`] gives one [`Response`]; [`Event`]s tell of changes. Over HTTP that is `POST /api/control` and the
//! server-sent events of `GET /api/events`; in the window the same values go over IPC. There is no other interface.
//!
//! Numbers are integers in the unit their name ends with (`_mj` millijoules, `_mw` milliwatts, `_ucr` micro-credits,
//! `_ms` milliseconds, `_c` °C, `_bytes`). Moments are milliseconds since 1970 UTC.

pub mod error;
pub mod event;
pub mod power;
pub mod request;
pub mod schedule;
pub mod view;

pub use error::{Code, ControlError};
pub use event::Event;
pub use power::{
    Actuator, GpuPower, Limit, LimitKind, MachinePower, ModelEnergy, Power, Sensor, SensorScope,
};
pub use request::{CodePicture, HubInvite, OwnHub, PauseFor, Request, Response, Secret};
pub use schedule::{DayHours, ModelFile, Outlook, PausedFor, Program, Schedule, Stretch, Yield, YieldStep};
pub use view::*;

/// Version of this interface. A guest that meets a resident of another version offers to restart it.
pub const CONTROL_VERSION: u32 = 1;

/// Header that carries the bearer token: `authorization: Bearer …`. Never in a query.
pub const BEARER_HEADER: &str = "authorization";
