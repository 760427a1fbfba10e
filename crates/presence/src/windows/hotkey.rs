//! One key combination, registered with Windows, which tells the window of [`Ears`] of it and of no other key.

use std::future::pending;

use ::windows::Win32::Foundation::ERROR_HOTKEY_ALREADY_REGISTERED;
use ::windows::Win32::UI::Input::KeyboardAndMouse::{
    HOT_KEY_MODIFIERS, MOD_ALT, MOD_CONTROL, MOD_SHIFT, MOD_WIN, VK_CANCEL, VK_END, VK_F1, VK_HOME,
    VK_INSERT, VK_NEXT, VK_PAUSE, VK_PRIOR,
};

use super::ears::{Ears, Heard};
use crate::hotkey::{Bell, Held, Hotkey, Key};

/// Rings when `hotkey` is pressed in this session.
pub(super) async fn follow(hotkey: Hotkey, bell: &Bell) {
    let Some(mut ears) = Ears::open() else {
        return bell.unheard("Windows gives this program no window to hear a key with", None);
    };
    if let Err(error) = ears.hear_key(code(hotkey), held(hotkey.held)) {
        let says = if error.code() == ERROR_HOTKEY_ALREADY_REGISTERED.to_hresult() {
            format!("another program, or Windows itself, has {hotkey}")
        } else {
            format!("Windows does not give {hotkey} ({error})")
        };
        bell.unheard(says, Some("Choose another key, or free this one there and set it again."));
        return pending().await;
    }
    bell.heard(format!("Windows tells of {hotkey}"));
    while let Some(heard) = ears.heard().await {
        if heard == Heard::Key {
            bell.ring();
        }
    }
    bell.unheard("the window that heard the key is gone", None);
}

fn held(held: Held) -> HOT_KEY_MODIFIERS {
    let all = [(held.ctrl, MOD_CONTROL), (held.alt, MOD_ALT), (held.shift, MOD_SHIFT), (held.logo, MOD_WIN)];
    all.into_iter().filter(|(held, _)| *held).fold(HOT_KEY_MODIFIERS(0), |all, (_, one)| all | one)
}

/// The virtual key's code.
fn code(hotkey: Hotkey) -> u16 {
    match hotkey.key {
        Key::Sign(sign) => sign.into(),
        Key::F(number) => VK_F1.0 + u16::from(number) - 1,
        // Keyboards send Break for it while Ctrl is held.
        Key::Pause if hotkey.held.ctrl => VK_CANCEL.0,
        Key::Pause => VK_PAUSE.0,
        Key::Insert => VK_INSERT.0,
        Key::Home => VK_HOME.0,
        Key::End => VK_END.0,
        Key::PageUp => VK_PRIOR.0,
        Key::PageDown => VK_NEXT.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_codes_that_windows_documents() {
        let code = |text: &str| code(text.parse().unwrap());
        assert_eq!([code("Ctrl+G"), code("Ctrl+1"), code("F24")], [0x47, 0x31, 0x87]);
        assert_eq!([code("Pause"), code("Ctrl+Alt+Pause")], [0x13, 0x03]);
        assert_eq!(held("Ctrl+Alt+Shift+Super+G".parse::<Hotkey>().unwrap().held).0, 0xf);
    }
}
