//! The glyphs of `icons/tray` as the panel wants them.

use crate::view::Icon;

/// The glyph in every size that panels ask for, as ARGB in network byte order.
pub(super) fn pixmaps(icon: Icon, dark: bool) -> Vec<ksni::Icon> {
    sources(icon, dark).iter().filter_map(|png| pixmap(png)).collect()
}

macro_rules! sizes {
    ($name:literal) => {
        &[
            include_bytes!(concat!("../../../../icons/tray/", $name, "-16.png")),
            include_bytes!(concat!("../../../../icons/tray/", $name, "-22.png")),
            include_bytes!(concat!("../../../../icons/tray/", $name, "-24.png")),
            include_bytes!(concat!("../../../../icons/tray/", $name, "-32.png")),
            include_bytes!(concat!("../../../../icons/tray/", $name, "-48.png")),
        ]
    };
}

fn sources(icon: Icon, dark: bool) -> &'static [&'static [u8]; 5] {
    match (icon, dark) {
        (Icon::Sharing, false) => sizes!("sharing-light"),
        (Icon::Sharing, true) => sizes!("sharing-dark"),
        (Icon::Yielding, false) => sizes!("yielding-light"),
        (Icon::Yielding, true) => sizes!("yielding-dark"),
        (Icon::Paused, false) => sizes!("paused-light"),
        (Icon::Paused, true) => sizes!("paused-dark"),
        (Icon::Offline, false) => sizes!("offline-light"),
        (Icon::Offline, true) => sizes!("offline-dark"),
        (Icon::Attention, false) => sizes!("attention-light"),
        (Icon::Attention, true) => sizes!("attention-dark"),
    }
}

/// Decodes one 8-bit RGBA bitmap; `None` for anything else, which a test rules out.
fn pixmap(png: &[u8]) -> Option<ksni::Icon> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().ok()?;
    let mut data = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut data).ok()?;
    if (info.color_type, info.bit_depth) != (png::ColorType::Rgba, png::BitDepth::Eight) {
        return None;
    }
    data.truncate(info.buffer_size());
    for pixel in data.chunks_exact_mut(4) {
        pixel.rotate_right(1);
    }
    Some(ksni::Icon {
        width: i32::try_from(info.width).ok()?,
        height: i32::try_from(info.height).ok()?,
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_glyph_is_there_in_every_size_and_shows_something() {
        for icon in [Icon::Sharing, Icon::Yielding, Icon::Paused, Icon::Offline, Icon::Attention] {
            for dark in [false, true] {
                let pixmaps = pixmaps(icon, dark);
                let widths: Vec<i32> = pixmaps.iter().map(|pixmap| pixmap.width).collect();
                assert_eq!(widths, [16, 22, 24, 32, 48], "{icon:?}, dark {dark}");
                for pixmap in pixmaps {
                    let opaque = pixmap.data.chunks_exact(4).filter(|argb| argb[0] > 128).count();
                    let pixels = pixmap.data.len() / 4;
                    assert!(opaque * 12 > pixels, "{icon:?} {}: {opaque} of {pixels}", pixmap.width);
                }
            }
        }
    }

    #[test]
    fn the_glyph_for_dark_panels_is_lighter() {
        let ink = |dark| -> u64 {
            pixmaps(Icon::Paused, dark)[3]
                .data
                .chunks_exact(4)
                .filter(|argb| argb[0] > 128)
                .map(|argb| u64::from(argb[2]))
                .sum()
        };
        assert!(ink(true) > 3 * ink(false));
    }
}
