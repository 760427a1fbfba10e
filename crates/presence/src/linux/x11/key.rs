//! One key combination, grabbed from an X server. The server sends this client that combination and no other key.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use x11rb::connection::Connection as _;
use x11rb::errors::ReplyError;
use x11rb::protocol::xproto::{ConnectionExt as _, GrabMode, Mapping, ModMask};
use x11rb::protocol::{ErrorKind, Event};
use x11rb::rust_connection::RustConnection;

use super::{Lost, ask, event, wire};
use crate::hotkey::{Bell, Hotkey, Key};

/// Keysyms of modifiers (X11 protocol, appendix A).
const ALT: [u32; 2] = [0xffe9, 0xffea];
const SUPER: [u32; 2] = [0xffeb, 0xffec];
const NUM_LOCK: [u32; 1] = [0xff7f];

/// `AnyKey`
const ANY_KEY: u8 = 0;

/// Rings when `hotkey` is pressed on `display`, until the server is lost.
pub(in super::super) async fn follow(display: &str, hotkey: Hotkey, bell: &Bell) -> Lost {
    match listen(display, hotkey, bell).await {
        Ok(never) => match never {},
        Err(lost) => lost,
    }
}

async fn listen(display: &str, hotkey: Hotkey, bell: &Bell) -> Result<Infallible, Lost> {
    let named = display.to_owned();
    let server = Arc::new(ask(move || Ok(RustConnection::connect(Some(&named))?)).await?);
    let wire = wire(&server.0)?;
    let mut released_at = None;
    let mut before = None;
    loop {
        let asked = Arc::clone(&server);
        let strokes = ask(move || strokes(&asked.0, hotkey)).await?;
        // Keyboards that take turns are told as changes too, and change nothing.
        if before.as_ref() != Some(&strokes) {
            let (asked, wanted) = (Arc::clone(&server), strokes.clone());
            tell(bell, display, hotkey, ask(move || grab(&asked.0, asked.1, wanted)).await?);
            before = Some(strokes);
        }
        loop {
            match event(&server.0, &wire).await? {
                // A key that is held down repeats itself: up and down at the same moment.
                Event::KeyPress(press) if released_at != Some(press.time) => bell.ring(),
                Event::KeyRelease(release) => released_at = Some(release.time),
                // Another keyboard or layout: the same key may have another number now.
                Event::MappingNotify(change) if change.request != Mapping::POINTER => break,
                _ => {}
            }
        }
    }
}

fn tell(bell: &Bell, display: &str, hotkey: Hotkey, grab: Grab) {
    match grab {
        Grab::Held => bell.heard(format!("X display {display} tells of {hotkey}")),
        Grab::Taken => bell.unheard(
            format!("another program on X display {display} has {hotkey}"),
            Some("Choose another key, or free this one there and set it again."),
        ),
        Grab::NoSuchKey => bell.unheard(
            format!("the keyboard of X display {display} has no key {}", hotkey.key),
            Some("Choose a key that it has."),
        ),
    }
}

enum Grab {
    Held,
    Taken,
    NoSuchKey,
}

/// A key's number, with every state of the modifiers in which it is meant.
type Strokes = (u8, BTreeSet<u16>);

/// What the key is on the keyboard of now; `None` where that has none.
fn strokes(server: &RustConnection, hotkey: Hotkey) -> Result<Option<Strokes>, Lost> {
    let keyboard = Keyboard::read(server)?;
    let Some(code) = keyboard.code(keysym(hotkey.key)) else { return Ok(None) };
    let held = hotkey.held;
    let mut wanted = ModMask::default();
    for (held, mask) in [
        (held.ctrl, ModMask::CONTROL),
        (held.shift, ModMask::SHIFT),
        (held.alt, keyboard.modifier(&ALT).unwrap_or(ModMask::M1)),
        (held.logo, keyboard.modifier(&SUPER).unwrap_or(ModMask::M4)),
    ] {
        if held {
            wanted |= mask;
        }
    }
    // Locks that are on count as held down.
    let locks = [ModMask::LOCK, keyboard.modifier(&NUM_LOCK).unwrap_or(ModMask::M2)];
    let on = [[false, false], [true, false], [false, true], [true, true]];
    Ok(Some((code, on.iter().map(|on| with_locks(wanted, locks, *on)).collect())))
}

/// Holds the key, and no other any more. That another program frees its key, X tells nobody.
fn grab(server: &RustConnection, screen: usize, wanted: Option<Strokes>) -> Result<Grab, Lost> {
    let root = server.setup().roots.get(screen).map_or(x11rb::NONE, |screen| screen.root);
    server.ungrab_key(ANY_KEY, root, ModMask::ANY)?.check()?;
    let Some((code, masks)) = wanted else { return Ok(Grab::NoSuchKey) };
    for mask in masks {
        let asked = server.grab_key(false, root, mask.into(), code, GrabMode::ASYNC, GrabMode::ASYNC)?;
        match asked.check() {
            Ok(()) => {}
            Err(ReplyError::X11Error(error)) if error.error_kind == ErrorKind::Access => {
                // Not some of its states either: it is whole or not at all.
                server.ungrab_key(ANY_KEY, root, ModMask::ANY)?.check()?;
                return Ok(Grab::Taken);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Grab::Held)
}

fn with_locks(wanted: ModMask, locks: [ModMask; 2], on: [bool; 2]) -> u16 {
    let on = locks.into_iter().zip(on).filter(|(_, on)| *on);
    on.fold(wanted, |mask, (lock, _)| mask | lock).into()
}

/// Which key means what.
struct Keyboard {
    first: u8,
    /// Keysyms of each key.
    keys: Vec<Vec<u32>>,
    /// Keys of each of the eight modifiers.
    modifiers: Vec<Vec<u8>>,
}

impl Keyboard {
    fn read(server: &RustConnection) -> Result<Self, Lost> {
        let (first, last) = (server.setup().min_keycode, server.setup().max_keycode);
        let count = last.saturating_sub(first).saturating_add(1);
        let keys = server.get_keyboard_mapping(first, count)?.reply()?;
        let modifiers = server.get_modifier_mapping()?.reply()?;
        let rows = |all: usize| (all / 8).max(1);
        Ok(Self {
            first,
            keys: keys
                .keysyms
                .chunks(usize::from(keys.keysyms_per_keycode).max(1))
                .map(<[u32]>::to_vec)
                .collect(),
            modifiers: modifiers
                .keycodes
                .chunks(rows(modifiers.keycodes.len()))
                .map(<[u8]>::to_vec)
                .collect(),
        })
    }

    /// The key that bears this sign, best without Shift.
    fn code(&self, keysym: u32) -> Option<u8> {
        let plain = self.keys.iter().position(|it| it.first() == Some(&keysym));
        let any = || self.keys.iter().position(|it| it.contains(&keysym));
        let index = u8::try_from(plain.or_else(any)?).ok()?;
        self.first.checked_add(index)
    }

    /// The modifier that one of these keys is.
    fn modifier(&self, keysyms: &[u32]) -> Option<ModMask> {
        let bears = |code: u8| {
            let index = code.checked_sub(self.first)?;
            Some(self.keys.get(usize::from(index))?.iter().any(|it| keysyms.contains(it)))
        };
        let row =
            self.modifiers.iter().position(|keys| keys.iter().any(|code| bears(*code) == Some(true)))?;
        Some(ModMask::from(1_u16.checked_shl(u32::try_from(row).ok()?)?))
    }
}

/// Keysyms (X11 protocol, appendix A).
fn keysym(key: Key) -> u32 {
    match key {
        Key::Sign(sign) => sign.to_ascii_lowercase().into(),
        Key::F(number) => 0xffbd + u32::from(number),
        Key::Pause => 0xff13,
        Key::Insert => 0xff63,
        Key::Home => 0xff50,
        Key::End => 0xff57,
        Key::PageUp => 0xff55,
        Key::PageDown => 0xff56,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alt on the third modifier and G on a layout's second group, as some layouts have it.
    fn keyboard() -> Keyboard {
        let (alt, cyrillic, shifted) = (vec![0xffe9], vec![0x6d0, 0x6f0, 0x67, 0x47], vec![0x26, 0x31]);
        let mut modifiers = vec![vec![0]; 8];
        modifiers[4] = vec![0, 8];
        Keyboard { first: 8, keys: vec![alt, cyrillic, shifted], modifiers }
    }

    #[test]
    fn keys_and_modifiers_are_where_this_keyboard_has_them() {
        let keyboard = keyboard();
        assert_eq!(keyboard.code(keysym(Key::Sign(b'G'))), Some(9));
        assert_eq!(keyboard.code(keysym(Key::Sign(b'1'))), Some(10));
        assert_eq!(keyboard.code(keysym(Key::Pause)), None);
        assert_eq!(keyboard.modifier(&ALT), Some(ModMask::M2));
        assert_eq!(keyboard.modifier(&SUPER), None);
    }

    #[test]
    fn function_keys_end_with_f24() {
        assert_eq!((keysym(Key::F(1)), keysym(Key::F(24))), (0xffbe, 0xffd5));
    }
}
