//! The table of settings: each key with how its text becomes a value. Defaults and meanings are in `default.toml`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use idlewatt_core::device::{ThermalLimits, named};
use idlewatt_core::policy::Battery;
use idlewatt_core::tariff::{CreditValue, Money, Prices};
use idlewatt_core::windows::ShareWindows;
use idlewatt_core::{duration, policy};
use idlewatt_devices::Places;
use idlewatt_devices::cap::CapPlaces;
use idlewatt_presence::hotkey::Hotkey;
use idlewatt_protocol::scope::RegionError;
use idlewatt_protocol::{Millijoules, Milliwatts, Region};
use idlewatt_signals::PlugAddress;
use url::Url;

/// The settings as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When to share: `share.*`, `thermal.limit`, `energy.price` and `energy.max_price`.
    pub policy: policy::Settings,
    /// `share.active_cap`: what is left of each cap while a person is here, or a program runs for which the host says so, %.
    pub active_cap: u32,
    /// `share.keep_awake`: keep the machine from sleeping while it shares.
    pub keep_awake: bool,
    /// `yield.free_after`: how long a person must be active before a model that sharing loaded is unloaded.
    pub free_after: FreeAfter,
    /// `yield.drain`: how long running requests may take to finish when a rule ends sharing, and nobody waits.
    pub drain: Duration,
    /// `yield.hotkey`: the key that gives everything back, wherever the keyboard points.
    pub hotkey: Option<Hotkey>,
    /// `standby.after`: without demand for this long, what sharing loaded is unloaded; `None` never.
    pub standby_after: Option<Duration>,
    /// `share.strangers`: whether the host agreed that services may be offered to strangers.
    pub strangers: bool,
    /// `share.region`: where this node says that it stands.
    pub region: Option<Region>,
    /// `own.networks`: whether the host's own endpoint asks joined networks for what this machine cannot answer.
    pub own_networks: bool,
    /// `hub.lan`: whether the host's own hub is open to the networks that this machine is in.
    pub hub_lan: bool,
    /// `hub.public_url`: a further address of that hub.
    pub hub_public_url: Option<Url>,
    /// `gpus.off`: beginnings of the ids of cards that do not share.
    pub gpus_off: Vec<String>,
    /// `gpus.reserve`
    pub reserve: Reserve,
    /// `power.cap`
    pub cap: Caps,
    /// `power.machine_cap`
    pub machine_cap: Option<Milliwatts>,
    /// `power.daily_energy`: most energy for sharing in a local day.
    pub daily_energy: Option<Millijoules>,
    /// `power.helper`: whether the privileged helper may be asked to set limits.
    pub helper: bool,
    /// `power.helper_socket`; `None` is its usual place.
    pub helper_socket: Option<PathBuf>,
    /// `thermal.hot_spot`, °C.
    pub hot_spot_c: i32,
    /// `thermal.fan_limit`, percent, in quiet hours.
    pub fan_limit: Option<u32>,
    /// `thermal.quiet_hours`
    pub quiet_hours: ShareWindows,
    /// `signals.plugs`
    pub plugs: Vec<PlugAddress>,
    /// `earnings.credit_value`
    pub credit_value: Option<CreditValue>,
    /// `servers.urls`
    pub server_urls: Vec<Url>,
    /// `servers.scan`
    pub scan: bool,
    /// `managed.*`: a llama-server of the node's own.
    pub managed: ManagedServer,
    /// `devices.nvml`; `None` is the driver's own.
    pub nvml: Option<PathBuf>,
    /// `devices.sysfs`
    pub sysfs: PathBuf,
    /// `keys.store`
    pub key_store: KeyStore,
    /// `control.listen`
    pub listen: SocketAddr,
}

/// A llama-server that the node starts itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedServer {
    /// `managed.model`: the GGUF file; `None` starts nothing.
    pub model: Option<PathBuf>,
    /// `managed.folders`: where to look for model files besides the usual places.
    pub folders: Vec<PathBuf>,
    /// `managed.program`; `None` is the first `llama-server` that is found.
    pub program: Option<PathBuf>,
    /// `managed.port`, on loopback.
    pub port: u16,
    /// `managed.context` of one slot, tokens; `None` is what fits.
    pub context: Option<u32>,
    /// `managed.slots`; `None` is what fits.
    pub slots: Option<u32>,
    /// `managed.gpu_layers`; `None` is what fits.
    pub gpu_layers: Option<u32>,
}

impl Default for ManagedServer {
    fn default() -> Self {
        Self {
            model: None,
            folders: Vec::new(),
            program: None,
            port: 4182,
            context: None,
            slots: None,
            gpu_layers: None,
        }
    }
}

/// Most power a card may draw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caps {
    /// A part of what each card was made for.
    #[default]
    Default,
    /// The same for every card.
    Every(Milliwatts),
    /// Card by card, by the beginning of its id; others have the default.
    Each(BTreeMap<String, Milliwatts>),
}

/// Where an identity is to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyStore {
    /// The keyring, or a file where there is none.
    #[default]
    Auto,
    /// The keyring.
    Keyring,
    /// A file.
    File,
}

/// When a person's activity gives the memory of the cards back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreeAfter {
    /// With the first input.
    Now,
    /// After this much of activity.
    Active(Duration),
    /// It does not.
    Never,
}

/// Memory of each card that is left to the host's own programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The same of every card, bytes.
    Every(u64),
    /// Card by card, by the beginning of its id; nothing of others.
    Each(BTreeMap<String, u64>),
}

impl Default for Reserve {
    fn default() -> Self {
        Self::Every(1_000_000_000)
    }
}

impl Reserve {
    /// What of a card is not to be planned with, bytes.
    #[must_use]
    pub fn of(&self, card: &str) -> u64 {
        match self {
            Self::Every(bytes) => *bytes,
            Self::Each(cards) => named(cards, card).copied().unwrap_or(0),
        }
    }
}

impl Caps {
    /// The cap of one card: what the host chose, or 80 % of what it was made for.
    #[must_use]
    pub fn of(&self, card: &str, default_limit: Option<Milliwatts>) -> Option<Milliwatts> {
        let chosen = match self {
            Self::Default => None,
            Self::Every(cap) => Some(*cap),
            Self::Each(caps) => named(caps, card).copied(),
        };
        chosen.or_else(|| default_limit.map(|limit| Milliwatts(limit.0 / 5 * 4)))
    }
}

impl Settings {
    /// Whether this card shares.
    #[must_use]
    pub fn is_on(&self, card: &str) -> bool {
        !self.gpus_off.iter().any(|id| card.starts_with(id.as_str()))
    }

    /// Whether these values make sense together, each being one by itself: the key that does not, and why.
    pub(super) fn fit(&self) -> Result<(), (&'static str, String)> {
        let Some((limit, tariff)) = self.policy.max_price.zip(self.policy.tariff.as_ref()) else {
            return Ok(());
        };
        let (is, wanted) = (limit.currency, tariff.currency());
        if is == wanted {
            return Ok(());
        }
        let (is, wanted) = (is.as_str(), wanted.as_str());
        let why = format!("it is in {is} and energy.price in {wanted}, and no rate of exchange is known");
        Err(("energy.max_price", why))
    }

    /// What energy costs when; `None` where the host said nothing about it.
    pub(crate) fn prices(&self) -> Option<&dyn Prices> {
        self.policy.tariff.as_ref().map(|it| it as &dyn Prices)
    }

    /// Where to look for cards.
    #[must_use]
    pub fn places(&self) -> Places {
        Places { nvml: self.nvml.clone(), sysfs: self.sysfs.clone(), ..Places::default() }
    }

    /// Where cards' limits are set from; `state` is the home's data folder.
    #[must_use]
    pub fn cap_places(&self, state: PathBuf) -> CapPlaces {
        let socket = || self.helper_socket.clone().unwrap_or_else(CapPlaces::usual_helper);
        CapPlaces { cards: self.places(), helper: self.helper.then(socket), state }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: policy::Settings::default(),
            active_cap: 50,
            keep_awake: false,
            free_after: FreeAfter::Active(Duration::from_secs(30)),
            drain: Duration::from_secs(30),
            hotkey: None,
            standby_after: Some(Duration::from_secs(10 * 60)),
            strangers: false,
            region: None,
            own_networks: false,
            hub_lan: false,
            hub_public_url: None,
            gpus_off: Vec::new(),
            reserve: Reserve::default(),
            cap: Caps::Default,
            machine_cap: None,
            daily_energy: None,
            helper: true,
            helper_socket: None,
            hot_spot_c: 95,
            fan_limit: None,
            quiet_hours: ShareWindows::ALWAYS,
            plugs: Vec::new(),
            credit_value: None,
            server_urls: Vec::new(),
            scan: true,
            managed: ManagedServer::default(),
            nvml: None,
            sysfs: PathBuf::from("/sys"),
            key_store: KeyStore::Auto,
            listen: SocketAddr::from(([127, 0, 0, 1], 4180)),
        }
    }
}

/// One key.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) local_only: bool,
    /// Puts the value of this text into the settings, or says why it is none.
    pub(super) apply: fn(&mut Settings, &str) -> Result<(), String>,
}

/// What a file or address is read from, and what code is loaded: for the command line only.
const LOCAL: bool = true;
const OPEN: bool = false;

/// Every key, in the order of `default.toml`.
pub(super) const KEYS: &[Rule] = &[
    rule("share.idle_after", OPEN, |it, text| put(&mut it.policy.idle_after, duration::parse(text))),
    rule("share.resume_hysteresis", OPEN, |it, text| {
        put(&mut it.policy.resume_hysteresis, duration::parse(text))
    }),
    rule("share.windows", OPEN, |it, text| put(&mut it.policy.windows, text.parse())),
    rule("share.exceptions", OPEN, |it, text| put(&mut it.policy.exceptions, text.parse())),
    rule("share.while_active", OPEN, |it, text| put(&mut it.policy.while_active, flag(text))),
    rule("share.active_cap", OPEN, |it, text| put(&mut it.active_cap, percent(text, 10))),
    rule("share.own_devices", OPEN, |it, text| put(&mut it.policy.own_devices, flag(text))),
    rule("share.locked_is_away", OPEN, |it, text| put(&mut it.policy.locked_is_away, flag(text))),
    rule("share.remote_logins", OPEN, |it, text| put(&mut it.policy.remote_logins, flag(text))),
    rule("share.games", OPEN, |it, text| put(&mut it.policy.games, flag(text))),
    rule("share.full_screen", OPEN, |it, text| put(&mut it.policy.full_screen, flag(text))),
    rule("share.calls", OPEN, |it, text| put(&mut it.policy.calls, flag(text))),
    rule("share.apps", OPEN, |it, text| put(&mut it.policy.apps, text.parse())),
    rule("share.gpu_load", OPEN, |it, text| {
        put(&mut it.policy.gpu_load, unless_never(text, |text| percent(text, 1)))
    }),
    rule("share.gpu_memory", OPEN, |it, text| put(&mut it.policy.gpu_memory, unless_never(text, bytes))),
    rule("share.gpu_idle_after", OPEN, |it, text| put(&mut it.policy.gpu_idle_after, duration::parse(text))),
    rule("share.battery", OPEN, |it, text| put(&mut it.policy.battery, battery(text))),
    rule("share.lid_closed", OPEN, |it, text| put(&mut it.policy.lid_closed, flag(text))),
    rule("share.metered", OPEN, |it, text| put(&mut it.policy.metered, flag(text))),
    rule("share.strangers", OPEN, |it, text| put(&mut it.strangers, flag(text))),
    rule("share.region", OPEN, |it, text| {
        put(&mut it.region, optional(text, |text| text.parse().map_err(|it: RegionError| it.to_string())))
    }),
    rule("share.memory_short", OPEN, |it, text| put(&mut it.policy.memory_short, flag(text))),
    rule("share.keep_awake", OPEN, |it, text| put(&mut it.keep_awake, flag(text))),
    rule("gpus.off", OPEN, |it, text| {
        put(&mut it.gpus_off, Ok::<_, String>(list(text).map(str::to_owned).collect()))
    }),
    rule("gpus.reserve", OPEN, |it, text| put(&mut it.reserve, reserve(text))),
    rule("yield.free_after", OPEN, |it, text| put(&mut it.free_after, free_after(text))),
    rule("yield.drain", OPEN, |it, text| put(&mut it.drain, duration::parse(text))),
    rule("yield.hotkey", OPEN, |it, text| {
        put(&mut it.hotkey, optional(text, |text| text.parse().map_err(|it| format!("it {it}"))))
    }),
    rule("standby.after", OPEN, |it, text| {
        put(
            &mut it.standby_after,
            unless_never(text, |text| {
                let after = duration::parse(text).map_err(|it| it.to_string())?;
                let least = Duration::from_secs(1);
                if after < least { Err("it must be at least 1s, or `never`".to_owned()) } else { Ok(after) }
            }),
        )
    }),
    rule("own.networks", OPEN, |it, text| put(&mut it.own_networks, flag(text))),
    rule("hub.lan", OPEN, |it, text| put(&mut it.hub_lan, flag(text))),
    rule("hub.public_url", LOCAL, |it, text| put(&mut it.hub_public_url, optional(text, hub_url))),
    rule("power.cap", OPEN, |it, text| put(&mut it.cap, caps(text))),
    rule("power.machine_cap", OPEN, |it, text| put(&mut it.machine_cap, optional(text, watts))),
    rule("power.daily_energy", OPEN, |it, text| put(&mut it.daily_energy, optional(text, kilowatt_hours))),
    rule("power.helper", LOCAL, |it, text| put(&mut it.helper, flag(text))),
    rule("power.helper_socket", LOCAL, |it, text| put(&mut it.helper_socket, path(text))),
    rule("thermal.limit", OPEN, |it, text| put(&mut it.policy.thermal, thermal_limits(text))),
    rule("thermal.hot_spot", OPEN, |it, text| put(&mut it.hot_spot_c, degrees(text))),
    rule("thermal.fan_limit", OPEN, |it, text| {
        put(&mut it.fan_limit, optional(text, |text| percent(text, 20)))
    }),
    rule("thermal.quiet_hours", OPEN, |it, text| put(&mut it.quiet_hours, text.parse())),
    rule("energy.price", OPEN, |it, text| put(&mut it.policy.tariff, optional(text, parsed))),
    rule("energy.max_price", OPEN, |it, text| {
        put(
            &mut it.policy.max_price,
            optional(text, |text| {
                Money::of_kilowatt_hour(text).ok_or_else(|| "it is no price such as 0.25 EUR/kWh".to_owned())
            }),
        )
    }),
    rule("signals.plugs", LOCAL, |it, text| put(&mut it.plugs, plugs(text))),
    rule("earnings.credit_value", OPEN, |it, text| put(&mut it.credit_value, optional(text, parsed))),
    rule("servers.urls", LOCAL, |it, text| put(&mut it.server_urls, urls(text))),
    rule("servers.scan", OPEN, |it, text| put(&mut it.scan, flag(text))),
    rule("managed.model", LOCAL, |it, text| put(&mut it.managed.model, path(text))),
    rule("managed.folders", LOCAL, |it, text| put(&mut it.managed.folders, Ok::<_, String>(folders(text)))),
    rule("managed.program", LOCAL, |it, text| put(&mut it.managed.program, path(text))),
    rule("managed.port", LOCAL, |it, text| put(&mut it.managed.port, number(text, 1024, 65_535))),
    rule("managed.context", OPEN, |it, text| {
        put(&mut it.managed.context, optional(text, |text| number(text, 256, 1_048_576)))
    }),
    rule("managed.slots", OPEN, |it, text| {
        put(&mut it.managed.slots, optional(text, |text| number(text, 1, 64)))
    }),
    rule("managed.gpu_layers", OPEN, |it, text| {
        put(&mut it.managed.gpu_layers, optional(text, |text| number(text, 0, 1000)))
    }),
    rule("devices.nvml", LOCAL, |it, text| put(&mut it.nvml, path(text))),
    rule("devices.sysfs", LOCAL, |it, text| put(&mut it.sysfs, Ok::<_, String>(text.into()))),
    rule("keys.store", LOCAL, |it, text| put(&mut it.key_store, key_store(text))),
    rule("control.listen", LOCAL, |it, text| put(&mut it.listen, loopback(text))),
];

const fn rule(
    name: &'static str,
    local_only: bool,
    apply: fn(&mut Settings, &str) -> Result<(), String>,
) -> Rule {
    Rule { name, local_only, apply }
}

pub(super) fn find(key: &str) -> Option<&'static Rule> {
    KEYS.iter().find(|rule| rule.name == key)
}

/// The key that a mistyped one may mean: with its last part, or most of its letters.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let last = key.rsplit('.').next().filter(|last| last.len() >= 3)?;
    let alike = |name: &str| {
        let shared = name.bytes().zip(key.bytes()).take_while(|(a, b)| a == b).count();
        name.ends_with(last) || shared * 4 >= name.len() * 3
    };
    KEYS.iter().map(|rule| rule.name).find(|name| alike(name))
}

/// The parts of a list written as text: `a, b` or `["a", "b"]`.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.trim_matches(['[', ']'])
        .split([',', ' '])
        .map(|part| part.trim_matches(['"', '\'', ' ']))
        .filter(|part| !part.is_empty())
}

fn put<T, E: Display>(place: &mut T, value: Result<T, E>) -> Result<(), String> {
    *place = value.map_err(|error| error.to_string())?;
    Ok(())
}

fn optional<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

fn path(text: &str) -> Result<Option<PathBuf>, String> {
    optional(text, |text| Ok(text.into()))
}

/// Paths may hold spaces, so only commas part them.
fn folders(text: &str) -> Vec<PathBuf> {
    let parts = text.trim_matches(['[', ']']).split(',').map(|it| it.trim().trim_matches(['"', '\'']));
    parts.filter(|it| !it.is_empty()).map(PathBuf::from).collect()
}

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "it is neither true nor false".to_owned())
}

fn number<T: FromStr + PartialOrd + Display>(text: &str, from: T, to: T) -> Result<T, String> {
    let wrong = || format!("it is no whole number from {from} to {to}");
    text.parse().ok().filter(|number| (&from..=&to).contains(&number)).ok_or_else(wrong)
}

fn degrees(text: &str) -> Result<i32, String> {
    let wrong = || "it is no temperature from 40 to 110 °C".to_owned();
    let number = text.trim_end_matches(['C', '°']).trim();
    number.parse().ok().filter(|degrees| (40..=110).contains(degrees)).ok_or_else(wrong)
}

/// `78`, `GPU-5d2c=70, GPU-91aa=82`, `78, GPU-5d2c=70`.
fn thermal_limits(text: &str) -> Result<ThermalLimits, String> {
    let mut limits = policy::Settings::default().thermal;
    let (every, each): (Vec<&str>, Vec<&str>) =
        text.split(',').map(str::trim).partition(|it| !it.contains('='));
    match every[..] {
        [] => {}
        [every] => limits.every = degrees(every)?,
        _ => return Err("it names more than one limit for every card".to_owned()),
    }
    if !each.is_empty() {
        limits.cards = by_card(&each.join(","), degrees)?;
    }
    Ok(limits)
}

/// `45`, `45 %`.
fn percent<T: FromStr + PartialOrd + Display + From<u8>>(text: &str, least: u8) -> Result<T, String> {
    let number = text.trim_end_matches('%').trim();
    let wrong = || format!("it is no whole percentage from {least} to 100");
    number.parse().ok().filter(|it| (&T::from(least)..=&T::from(100)).contains(&it)).ok_or_else(wrong)
}

fn battery(text: &str) -> Result<Battery, String> {
    let read = unless_never(text, |text| percent(text, 0));
    read.map(|from| from.map_or(Battery::Never, Battery::From))
        .map_err(|_| "it is neither `never` nor a whole percentage from 0 to 100".to_owned())
}

fn free_after(text: &str) -> Result<FreeAfter, String> {
    match text {
        "now" => Ok(FreeAfter::Now),
        "never" => Ok(FreeAfter::Never),
        _ => duration::parse(text)
            .map(FreeAfter::Active)
            .map_err(|_| "it is none of `now`, `never` and a duration such as 30s".to_owned()),
    }
}

fn unless_never<T>(text: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == "never" { Ok(None) } else { read(text).map(Some) }
}

/// `2GB`, `1.5 GB`; a gigabyte is 10⁹ bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("GB").unwrap_or(text).trim();
    micros(number)
        .and_then(|micros| u64::try_from(micros).ok()?.checked_mul(1_000))
        .filter(|bytes| *bytes <= 1_000_000_000_000)
        .ok_or_else(|| format!("{text:?} is no amount of memory from 0 to 1000 GB, such as 2GB"))
}

fn reserve(text: &str) -> Result<Reserve, String> {
    if text.contains('=') { by_card(text, bytes).map(Reserve::Each) } else { bytes(text).map(Reserve::Every) }
}

/// `GPU-5d2c=280, GPU-91aa=200`.
fn by_card<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<BTreeMap<String, T>, String> {
    let part = |part: &str| {
        let (card, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not CARD=VALUE"))?;
        match card.trim() {
            "" => Err("a card has no name".to_owned()),
            card => Ok((card.to_owned(), read(value.trim())?)),
        }
    };
    text.split(',').map(part).collect()
}

/// `2.5`, `2.5 kWh`.
fn kilowatt_hours(text: &str) -> Result<Millijoules, String> {
    let number = text.strip_suffix("kWh").unwrap_or(text).trim();
    micros(number)
        // A millionth of a kilowatt-hour is 3,600 mJ.
        .and_then(|micros| micros.checked_mul(3_600))
        .filter(|energy| (36_000_000..=3_600_000_000_000).contains(energy))
        .map(Millijoules)
        .ok_or_else(|| format!("{text:?} is no energy from 0.01 to 1000 kWh"))
}

/// `280`, `280W`, `62.5 W`.
fn watts(text: &str) -> Result<Milliwatts, String> {
    let number = text.trim_end_matches(['W', 'w']).trim();
    micros(number)
        .map(|micros| Milliwatts(micros / 1000))
        .filter(|watts| (1_000..=100_000_000).contains(&watts.0))
        .ok_or_else(|| format!("{text:?} is no power from 1 to 100000 W"))
}

fn caps(text: &str) -> Result<Caps, String> {
    if text.is_empty() {
        return Ok(Caps::Default);
    }
    if !text.contains('=') {
        return watts(text).map(Caps::Every);
    }
    by_card(text, watts).map(Caps::Each)
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A decimal number in millionths, exactly.
fn micros(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !digits(whole) || !digits(part) {
        return None;
    }
    format!("{whole}{part:0<6}").parse().ok()
}

fn hub_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|it| format!("it is no address ({it})"))?;
    idlewatt_protocol::invite::check_hub_url(&url).map_err(|it| it.to_string())?;
    Ok(url)
}

fn urls(text: &str) -> Result<Vec<Url>, String> {
    list(text)
        .map(|part| {
            Url::parse(part)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
                .ok_or_else(|| format!("{part:?} is no http or https address"))
        })
        .collect()
}

fn plugs(text: &str) -> Result<Vec<PlugAddress>, String> {
    list(text)
        .map(|part| part.parse().map_err(|error| format!("it names a wall plug wrongly: {error}")))
        .collect()
}

fn key_store(text: &str) -> Result<KeyStore, String> {
    match text {
        "auto" => Ok(KeyStore::Auto),
        "keyring" => Ok(KeyStore::Keyring),
        "file" => Ok(KeyStore::File),
        _ => Err("it is none of auto, keyring, file".to_owned()),
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .ok()
        .filter(|address| address.ip().is_loopback())
        .ok_or_else(|| "it is no loopback address such as 127.0.0.1:4180".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_for_every_card_or_card_by_card_and_default_to_four_fifths() {
        let limit = Some(Milliwatts(450_000));
        assert_eq!(caps("").unwrap().of("GPU-1", limit), Some(Milliwatts(360_000)));
        assert_eq!(caps("280 W").unwrap().of("GPU-1", limit), Some(Milliwatts(280_000)));
        let each = caps("GPU-1=200, GPU-2=62.5W").unwrap();
        assert_eq!(each.of("GPU-1a", limit), Some(Milliwatts(200_000)));
        assert_eq!(each.of("GPU-2b", None), Some(Milliwatts(62_500)));
        assert_eq!(each.of("GPU-3", None), None);
        let alike = caps("GPU-1=200, GPU-10=100").unwrap();
        assert_eq!(alike.of("GPU-10-ab", limit), Some(Milliwatts(100_000)));
        for wrong in ["0", "-5", "GPU-1=", "=5", "many"] {
            assert!(caps(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn thermal_limits_are_for_every_card_or_card_by_card() {
        assert_eq!(thermal_limits("70"), Ok(ThermalLimits::every(70)));
        let each = thermal_limits("GPU-1=70, GPU-10=82C").unwrap();
        assert_eq!((each.of("GPU-1a"), each.of("GPU-10b"), each.of("GPU-2")), (70, 82, 78));
        let both = thermal_limits("75 °C, GPU-1=70").unwrap();
        assert_eq!((both.of("GPU-1a"), both.of("GPU-2")), (70, 75));
        for wrong in ["", "39", "111", "70, 80", "GPU-1=", "GPU-1=7000", "=70", "hot"] {
            assert!(thermal_limits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_read_with_and_without_their_unit() {
        assert_eq!(kilowatt_hours("2.5 kWh").unwrap(), Millijoules(9_000_000_000));
        assert_eq!(kilowatt_hours("0.01").unwrap(), Millijoules(36_000_000));
        assert_eq!((percent("45 %", 20), percent("100", 20)), (Ok(45_u32), Ok(100)));
        for wrong in ["", "0", "-1", "0.001", "1001", "2 Wh", "9999999999999999999"] {
            assert!(kilowatt_hours(wrong).is_err(), "{wrong}");
        }
        for wrong in ["10", "101", "loud"] {
            assert!(percent::<u8>(wrong, 20).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_loopback_address_is_listened_on() {
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:4180").is_ok());
        assert!(loopback("0.0.0.0:4180").is_err() && loopback("localhost").is_err());
    }
}
