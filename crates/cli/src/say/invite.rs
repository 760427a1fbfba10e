//! An invite to the host's own hub, as a link to paste and as a code to scan.

use std::collections::BTreeSet;

use idlewatt_control::{CodePicture, HubInvite};

pub(super) fn text(it: &HubInvite) -> String {
    let code = it.picture.as_ref().map(code).unwrap_or_default();
    format!(
        "{code}\nScan it with a phone to use your models there, or run this on another computer:\n\n  idlewatt join \"{}\"\n\n\
         It lets one device in, within 24 hours. Keep it to yourself until then.\n",
        it.invite
    )
}

/// Two squares a character, dark on light whatever the terminal's colours are.
fn code(picture: &CodePicture) -> String {
    let square = |text: &str| {
        let (x, y) = text.split_once(' ')?;
        Some((x.parse::<u32>().ok()?, y.split('h').next()?.parse::<u32>().ok()?))
    };
    let dark: BTreeSet<(u32, u32)> = picture.path.split('M').filter_map(square).collect();
    let mut lines = String::new();
    for y in (0..picture.size).step_by(2) {
        lines.push_str("\x1b[30;107m");
        lines.extend((0..picture.size).map(|x| match (dark.contains(&(x, y)), dark.contains(&(x, y + 1))) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        }));
        lines.push_str("\x1b[0m\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_drawn_two_rows_a_line() {
        let picture =
            CodePicture { size: 3, path: "M0 0h1v1h-1zM1 1h1v1h-1zM2 0h1v1h-1zM2 1h1v1h-1z".into() };
        let plain = code(&picture).replace("\x1b[30;107m", "").replace("\x1b[0m", "");
        assert_eq!(plain, "▀▄█\n   \n");
    }
}
