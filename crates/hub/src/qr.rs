//! A link as a picture that a phone's camera reads.

use std::fmt::Write as _;

use qrcode::{Color, EcLevel, QrCode};
use serde::{Deserialize, Serialize};

/// Light modules around the code, which readers need.
const QUIET: usize = 4;

/// A code as squares of one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Units in width and height, the quiet margin included.
    pub size: usize,
    /// The dark squares, as the `d` of an SVG path in a view box of that size.
    pub path: String,
}

/// The code of `text`; `None` where it is too long for one (2,331 bytes).
#[must_use]
pub fn picture(text: &str) -> Option<Picture> {
    let code = encode(text)?;
    let size = code.width();
    let mut path = String::new();
    for (x, y) in (0..size).flat_map(|y| (0..size).map(move |x| (x, y))) {
        if code[(x, y)] == Color::Dark {
            // Writing to a String cannot fail.
            let _ = write!(path, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    Some(Picture { size: size + 2 * QUIET, path })
}

/// The same for a terminal: two modules a character, dark on light whatever its colours are.
#[must_use]
pub fn for_terminal(text: &str) -> Option<String> {
    const DARK_ON_LIGHT: &str = "\x1b[30;107m";
    const PLAIN: &str = "\x1b[0m";
    const MARGIN: usize = QUIET / 2;
    let code = encode(text)?;
    let size = code.width();
    let is_dark = |x: usize, y: usize| {
        let inside = |at: usize| at.checked_sub(MARGIN).filter(|at| *at < size);
        inside(x).zip(inside(y)).is_some_and(|place| code[place] == Color::Dark)
    };
    let outer = 0..size + 2 * MARGIN;
    let mut lines = String::new();
    for y in outer.clone().step_by(2) {
        lines.push_str(DARK_ON_LIGHT);
        lines.extend(outer.clone().map(|x| match (is_dark(x, y), is_dark(x, y + 1)) {
            (true, true) => '█',
            (true, false) => '▀',
            (false, true) => '▄',
            (false, false) => ' ',
        }));
        lines.push_str(PLAIN);
        lines.push('\n');
    }
    Some(lines)
}

fn encode(text: &str) -> Option<QrCode> {
    QrCode::with_error_correction_level(text, EcLevel::M).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_three_corners_and_a_quiet_margin() {
        let picture = picture("https://hub.example/join#token=abc").unwrap();
        let far = picture.size - 5;
        for (x, y) in [(4, 4), (far, 4), (4, far)] {
            assert!(picture.path.contains(&format!("M{x} {y}h1v1h-1z")), "{x} {y}");
        }
        assert!(!picture.path.contains("M3 ") && !picture.path.contains(" 3h"));
    }

    #[test]
    fn a_terminal_shows_two_rows_a_line_in_its_own_colours_only_where_told() {
        let lines = for_terminal("a").unwrap();
        // 21 modules and two of margin on each side.
        assert_eq!(lines.lines().count(), 13);
        assert!(lines.lines().all(|line| line.starts_with("\x1b[30;107m") && line.ends_with("\x1b[0m")));
    }

    #[test]
    fn what_is_too_long_has_no_code() {
        assert_eq!(picture(&"x".repeat(2400)), None);
        assert!(picture(&"x".repeat(1500)).is_some());
    }
}
