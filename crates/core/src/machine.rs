//! What state the machine itself is in, as a plain value. The sources are `idlewatt-machine`'s.

/// What the machine runs on and under. What no source tells of is `None`, and then stops nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// Where the power comes from.
    pub supply: Option<Supply>,
    /// Whether the lid is closed and no other screen is used.
    pub lid_closed: Option<bool>,
    /// Whether the connection to the internet is paid by volume.
    pub metered: Option<bool>,
    /// Whether programs wait for memory.
    pub memory_short: Option<bool>,
    /// The system is about to sleep.
    pub going_to_sleep: bool,
}

/// Where the power comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// The mains.
    Mains,
    /// A battery.
    Battery {
        /// How full it is, 0 to 100 %, where it tells.
        percent: Option<u8>,
    },
}
