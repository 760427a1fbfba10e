//! What the host set of when to share.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::device::ThermalLimits;
use crate::presence::App;
use crate::tariff::{Money, Tariff};
use crate::windows::{Exceptions, ShareWindows};

/// What the host set. Every `share.X` that is a flag says whether to share in spite of X.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `share.idle_after`: time without input before sharing; zero does not wait for idleness at all.
    pub idle_after: Duration,
    /// `share.resume_hysteresis`
    pub resume_hysteresis: Duration,
    /// `share.windows`
    pub windows: ShareWindows,
    /// `share.exceptions`
    pub exceptions: Exceptions,
    /// `share.while_active`: share although a person is here.
    pub while_active: bool,
    /// `share.locked_is_away`: behind a locked screen, and while every display is off, nobody is waited for but for the
    /// hysteresis.
    pub locked_is_away: bool,
    /// `share.remote_logins`: share although people are logged in over the network.
    pub remote_logins: bool,
    /// `share.own_devices`: let requests of the host's own devices pass reasons that [give way](super::Cause::gives_way).
    pub own_devices: bool,
    /// `share.games`
    pub games: bool,
    /// `share.full_screen`
    pub full_screen: bool,
    /// `share.calls`
    pub calls: bool,
    /// `share.apps`
    pub apps: AppRules,
    /// `share.gpu_load`: up to this busy by other programs a card counts as idle, %; `None` does not look.
    pub gpu_load: Option<u8>,
    /// `share.gpu_memory`: up to this much memory held by other programs a card counts as idle, bytes; `None` does not look.
    pub gpu_memory: Option<u64>,
    /// `share.gpu_idle_after`: for so long no other program must have used a card; the hysteresis holds in any case.
    pub gpu_idle_after: Duration,
    /// `share.battery`
    pub battery: Battery,
    /// `share.lid_closed`
    pub lid_closed: bool,
    /// `share.metered`
    pub metered: bool,
    /// `share.memory_short`
    pub memory_short: bool,
    /// `energy.price`
    pub tariff: Option<Tariff>,
    /// `energy.max_price` of a kilowatt-hour, in the currency of the tariff.
    pub max_price: Option<Money>,
    /// `thermal.limit`
    pub thermal: ThermalLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_after: Duration::from_secs(10 * 60),
            resume_hysteresis: Duration::from_secs(2 * 60),
            windows: ShareWindows::ALWAYS,
            exceptions: Exceptions::default(),
            while_active: false,
            locked_is_away: true,
            remote_logins: true,
            own_devices: true,
            games: false,
            full_screen: false,
            calls: false,
            apps: AppRules::default(),
            gpu_load: Some(25),
            gpu_memory: Some(4_000_000_000),
            gpu_idle_after: Duration::from_secs(2 * 60),
            battery: Battery::Never,
            lid_closed: false,
            metered: false,
            memory_short: false,
            tariff: None,
            max_price: None,
            thermal: ThermalLimits::every(78),
        }
    }
}

/// Whether to share on battery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Battery {
    /// Not at all.
    #[default]
    Never,
    /// While it is at least this full, %.
    From(u8),
}

/// Programs that the host wants undisturbed, each with what happens while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppRules(Vec<AppRule>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRule {
    /// A program's name, or its path.
    pub app: String,
    /// What happens while it runs.
    pub then: WhileItRuns,
}

/// What happens while a listed program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileItRuns {
    /// Nothing is shared.
    Pause,
    /// It is shared under the lower cap.
    LowerCap,
}

impl AppRules {
    /// What they name, for whoever looks for programs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|rule| rule.app.as_str())
    }

    /// The names of those during which this happens.
    pub fn names_of(&self, then: WhileItRuns) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |rule| rule.then == then).map(|rule| rule.app.as_str())
    }

    /// The first of these programs for which a rule says so.
    pub(super) fn first<'a>(&self, running: &'a [App], then: WhileItRuns) -> Option<&'a App> {
        let says = |app: &App| {
            let rule = self.0.iter().find(|rule| rule.app.eq_ignore_ascii_case(&app.name));
            // What was found by a list of a moment ago pauses until it is looked again.
            rule.map_or(WhileItRuns::Pause, |rule| rule.then) == then
        };
        running.iter().find(|app| says(app))
    }
}

/// Why a text is no list of programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} {problem} (write names or paths with commas between, such as `blender, OBS Studio=cap`)")]
pub struct AppRulesError {
    entry: String,
    problem: &'static str,
}

impl FromStr for AppRules {
    type Err = AppRulesError;

    /// `blender, OBS Studio=cap`
    fn from_str(text: &str) -> Result<Self, AppRulesError> {
        let rule = |entry: &str| {
            let wrong = |problem| AppRulesError { entry: entry.chars().take(40).collect(), problem };
            let (app, then) = match entry.rsplit_once('=') {
                None => (entry, WhileItRuns::Pause),
                Some((app, then)) => match then.trim() {
                    "pause" => (app, WhileItRuns::Pause),
                    "cap" => (app, WhileItRuns::LowerCap),
                    _ => return Err(wrong("says neither =pause nor =cap")),
                },
            };
            let app = app.trim();
            if app.is_empty() {
                Err(wrong("names no program"))
            } else {
                Ok(AppRule { app: app.to_owned(), then })
            }
        };
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(rule).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for AppRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.0.iter().enumerate() {
            let (comma, cap) = (
                if index == 0 { "" } else { ", " },
                if rule.then == WhileItRuns::Pause { "" } else { "=cap" },
            );
            write!(f, "{comma}{}{cap}", rule.app)?;
        }
        Ok(())
    }
}
