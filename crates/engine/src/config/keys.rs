//! The table of settings: each key with how its text becomes a value. Defaults and meanings are in `default.toml`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use idlewatt_core::tariff::{CreditValue, Prices, Tariff};
use idlewatt_core::windows::ShareWindows;
use idlewatt_core::{duration, policy};
use idlewatt_devices::Places;
use idlewatt_devices::cap::CapPlaces;
use idlewatt_protocol::{Millijoules, Milliwatts};
use idlewatt_signals::PlugAddress;
use url::Url;

/// The settings as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// When to share: `share.*` and `thermal.limit`.
    pub policy: policy::Settings,
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
    /// `energy.price`
    pub tariff: Option<Tariff>,
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
    /// `managed.program`; `None` is `llama-server` in `PATH`.
    pub program: Option<PathBuf>,
    /// `managed.port`, on loopback.
    pub port: u16,
    /// `managed.context` of one slot, tokens.
    pub context: u32,
    /// `managed.slots`
    pub slots: u32,
    /// `managed.gpu_layers`; `None` lets it decide.
    pub gpu_layers: Option<u32>,
}

impl Default for ManagedServer {
    fn default() -> Self {
        Self { model: None, program: None, port: 4182, context: 4096, slots: 2, gpu_layers: None }
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

impl Caps {
    /// The cap of one card: what the host chose, or 80 % of what it was made for.
    #[must_use]
    pub fn of(&self, card: &str, default_limit: Option<Milliwatts>) -> Option<Milliwatts> {
        let chosen = match self {
            Self::Default => None,
            Self::Every(cap) => Some(*cap),
            Self::Each(caps) => {
                // Of several beginnings the longest: `GPU-1` must not speak for `GPU-10`.
                let named = caps.iter().filter(|(id, _)| card.starts_with(id.as_str()));
                named.max_by_key(|(id, _)| id.len()).map(|(_, cap)| *cap)
            }
        };
        chosen.or_else(|| default_limit.map(|limit| Milliwatts(limit.0 / 5 * 4)))
    }
}

impl Settings {
    /// What energy costs when; `None` where the host said nothing about it.
    pub(crate) fn prices(&self) -> Option<&dyn Prices> {
        self.tariff.as_ref().map(|it| it as &dyn Prices)
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
            cap: Caps::Default,
            machine_cap: None,
            daily_energy: None,
            helper: true,
            helper_socket: None,
            hot_spot_c: 95,
            fan_limit: None,
            quiet_hours: ShareWindows::ALWAYS,
            tariff: None,
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
    rule("share.while_active", OPEN, |it, text| put(&mut it.policy.while_active, flag(text))),
    rule("power.cap", OPEN, |it, text| put(&mut it.cap, caps(text))),
    rule("power.machine_cap", OPEN, |it, text| put(&mut it.machine_cap, optional(text, watts))),
    rule("power.daily_energy", OPEN, |it, text| put(&mut it.daily_energy, optional(text, kilowatt_hours))),
    rule("power.helper", LOCAL, |it, text| put(&mut it.helper, flag(text))),
    rule("power.helper_socket", LOCAL, |it, text| put(&mut it.helper_socket, path(text))),
    rule("thermal.limit", OPEN, |it, text| put(&mut it.policy.thermal_limit_c, degrees(text))),
    rule("thermal.hot_spot", OPEN, |it, text| put(&mut it.hot_spot_c, degrees(text))),
    rule("thermal.fan_limit", OPEN, |it, text| put(&mut it.fan_limit, optional(text, fan))),
    rule("thermal.quiet_hours", OPEN, |it, text| put(&mut it.quiet_hours, text.parse())),
    rule("energy.price", OPEN, |it, text| put(&mut it.tariff, optional(text, parsed))),
    rule("signals.plugs", LOCAL, |it, text| put(&mut it.plugs, plugs(text))),
    rule("earnings.credit_value", OPEN, |it, text| put(&mut it.credit_value, optional(text, parsed))),
    rule("servers.urls", LOCAL, |it, text| put(&mut it.server_urls, urls(text))),
    rule("servers.scan", OPEN, |it, text| put(&mut it.scan, flag(text))),
    rule("managed.model", LOCAL, |it, text| put(&mut it.managed.model, path(text))),
    rule("managed.program", LOCAL, |it, text| put(&mut it.managed.program, path(text))),
    rule("managed.port", LOCAL, |it, text| put(&mut it.managed.port, number(text, 1024, 65_535))),
    rule("managed.context", OPEN, |it, text| put(&mut it.managed.context, number(text, 256, 1_048_576))),
    rule("managed.slots", OPEN, |it, text| put(&mut it.managed.slots, number(text, 1, 64))),
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

fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "it is neither true nor false".to_owned())
}

fn number<T: FromStr + PartialOrd + Display>(text: &str, from: T, to: T) -> Result<T, String> {
    let wrong = || format!("it is no whole number from {from} to {to}");
    text.parse().ok().filter(|number| (&from..=&to).contains(&number)).ok_or_else(wrong)
}

fn degrees(text: &str) -> Result<i32, String> {
    let wrong = || "it is no temperature from 40 to 110 °C".to_owned();
    text.parse().ok().filter(|degrees| (40..=110).contains(degrees)).ok_or_else(wrong)
}

fn fan(text: &str) -> Result<u32, String> {
    let number = text.trim_end_matches('%').trim();
    let wrong = || format!("{text:?} is no fan speed from 20 to 100 %");
    number.parse().ok().filter(|percent| (20..=100).contains(percent)).ok_or_else(wrong)
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
    text.split(',')
        .map(|part| {
            let (card, cap) = part.split_once('=').ok_or_else(|| format!("{part:?} is not CARD=WATTS"))?;
            let card = card.trim();
            if card.is_empty() {
                return Err("a card has no name".to_owned());
            }
            Ok((card.to_owned(), watts(cap.trim())?))
        })
        .collect::<Result<_, String>>()
        .map(Caps::Each)
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
    fn limits_are_read_with_and_without_their_unit() {
        assert_eq!(kilowatt_hours("2.5 kWh").unwrap(), Millijoules(9_000_000_000));
        assert_eq!(kilowatt_hours("0.01").unwrap(), Millijoules(36_000_000));
        assert_eq!((fan("45 %"), fan("100")), (Ok(45), Ok(100)));
        for wrong in ["", "0", "-1", "0.001", "1001", "2 Wh", "9999999999999999999"] {
            assert!(kilowatt_hours(wrong).is_err(), "{wrong}");
        }
        assert!(fan("10").is_err() && fan("101").is_err() && fan("loud").is_err());
    }

    #[test]
    fn only_a_loopback_address_is_listened_on() {
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:4180").is_ok());
        assert!(loopback("0.0.0.0:4180").is_err() && loopback("localhost").is_err());
    }
}
