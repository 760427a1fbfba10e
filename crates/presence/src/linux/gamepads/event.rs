//! The kernel's input events, and what a device says it has. Numbers from `include/uapi/linux/input-event-codes.h`.

/// Bytes of a `struct input_event`: two words of time, then type, code and value.
pub(super) const EVENT: usize = 2 * size_of::<usize>() + 8;

const EV_KEY: u16 = 1;
const EV_ABS: u16 = 3;

const KEY_Q: usize = 16;
const KEY_SPACE: usize = 57;
const BTN_JOYSTICK: usize = 0x120;
const BTN_DIGI: usize = 0x140;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    kind: u16,
    pub(super) code: u16,
    pub(super) value: i32,
}

impl Event {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [k0, k1, c0, c1, value @ ..] = bytes.get(EVENT - 8..)? else { return None };
        let value = i32::from_ne_bytes(value.try_into().ok()?);
        Some(Self { kind: u16::from_ne_bytes([*k0, *k1]), code: u16::from_ne_bytes([*c0, *c1]), value })
    }

    /// A button that went down or up: never by itself.
    pub(super) fn is_press(self) -> bool {
        self.kind == EV_KEY
    }

    pub(super) fn is_of_an_axis(self) -> bool {
        self.kind == EV_ABS
    }

    #[cfg(test)]
    pub(super) fn axis(code: u16, value: i32) -> Self {
        Self { kind: EV_ABS, code, value }
    }
}

/// Whether a device is a gamepad or joystick, by its `capabilities/key` in sysfs: words in hexadecimal, the highest first. One with
/// letters is a keyboard, whatever else it claims: some name joystick buttons they do not have.
pub(super) fn is_gamepad(keys: &str) -> bool {
    let words: Vec<usize> =
        keys.split_whitespace().rev().map(|word| usize::from_str_radix(word, 16).unwrap_or(0)).collect();
    let bits = usize::BITS as usize;
    let has = |key: usize| words.get(key / bits).is_some_and(|word| word >> (key % bits) & 1 == 1);
    (BTN_JOYSTICK..BTN_DIGI).any(has) && !(KEY_Q..=KEY_SPACE).any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn gamepads_are_told_from_keyboards_and_mice_by_their_buttons() {
        // As Linux 6.1 shows them: an Xbox 360 pad, a flight stick, a keyboard, a mouse.
        assert!(is_gamepad("7cdb000000000000 0 0 0 0\n"));
        assert!(is_gamepad("fff00000000 0 0 0 0"));
        assert!(!is_gamepad("402000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe"));
        assert!(!is_gamepad("1f0000 0 0 0 0"));
        assert!(!is_gamepad("") && !is_gamepad("garbage"));
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_keyboard_that_claims_joystick_buttons_is_a_keyboard() {
        assert!(!is_gamepad("7cdb000000000000 0 0 febeffdfffefffff fffffffffffffffe"));
    }
}
