//! Xbox-like gamepads: Windows does not count them as input.
#![expect(unsafe_code, reason = "XInput has a C interface")]

use std::time::{Duration, Instant};

use ::windows::Win32::UI::Input::XboxController::{
    XINPUT_GAMEPAD, XINPUT_GAMEPAD_LEFT_THUMB_DEADZONE, XINPUT_GAMEPAD_RIGHT_THUMB_DEADZONE,
    XINPUT_GAMEPAD_TRIGGER_THRESHOLD, XINPUT_STATE, XInputGetState,
};
use idlewatt_core::presence::PresenceReading;

/// Asking for one that is not there makes Windows look for it on the bus: not each time.
const AGAIN: Duration = Duration::from_secs(30);
const PADS: u32 = 4;

/// What they said last.
#[derive(Debug, Default)]
pub(super) struct Pads {
    touched: Option<Instant>,
    looked_for: Option<Instant>,
    there: [bool; PADS as usize],
}

impl Pads {
    /// How many are connected, as of the last look.
    pub(super) fn connected(&self) -> usize {
        self.there.iter().filter(|it| **it).count()
    }

    /// What they tell now; `None` before the first touch.
    pub(super) fn look(&mut self, quiet: Duration) -> Option<PresenceReading> {
        let now = Instant::now();
        let search = self.looked_for.is_none_or(|at| now - at >= AGAIN);
        if search {
            self.looked_for = Some(now);
        }
        for (number, there) in (0..PADS).zip(&mut self.there) {
            if !*there && !search {
                continue;
            }
            let mut state = XINPUT_STATE::default();
            // SAFETY: the structure lives through the call.
            *there = unsafe { XInputGetState(number, &raw mut state) } == 0;
            if *there && is_touched(&state.Gamepad) {
                self.touched = Some(now);
            }
        }
        let last_input = self.touched?;
        Some(if now - last_input < quiet {
            PresenceReading::Active { since: last_input }
        } else {
            PresenceReading::Idle { last_input }
        })
    }
}

/// A stick that is let go does not rest at zero: each has its dead zone.
fn is_touched(pad: &XINPUT_GAMEPAD) -> bool {
    let far = |x: i16, y: i16, zone: u16| x.unsigned_abs() > zone || y.unsigned_abs() > zone;
    pad.wButtons.0 != 0
        || u16::from(pad.bLeftTrigger.max(pad.bRightTrigger)) > XINPUT_GAMEPAD_TRIGGER_THRESHOLD.0
        || far(pad.sThumbLX, pad.sThumbLY, XINPUT_GAMEPAD_LEFT_THUMB_DEADZONE.0)
        || far(pad.sThumbRX, pad.sThumbRY, XINPUT_GAMEPAD_RIGHT_THUMB_DEADZONE.0)
}

#[cfg(test)]
mod tests {
    use ::windows::Win32::UI::Input::XboxController::XINPUT_GAMEPAD_A;

    use super::*;

    #[test]
    fn a_stick_at_rest_is_nobody() {
        let rest =
            XINPUT_GAMEPAD { sThumbLX: 3000, sThumbRY: -8000, bLeftTrigger: 20, ..XINPUT_GAMEPAD::default() };
        assert!(!is_touched(&rest));
        assert!(is_touched(&XINPUT_GAMEPAD { sThumbLX: i16::MIN, ..rest }));
        assert!(is_touched(&XINPUT_GAMEPAD { wButtons: XINPUT_GAMEPAD_A, ..rest }));
        assert!(is_touched(&XINPUT_GAMEPAD { bRightTrigger: 31, ..rest }));
    }
}
