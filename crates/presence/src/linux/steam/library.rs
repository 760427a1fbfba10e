//! What Steam calls its games: `appmanifest_440.acf` in one of its library folders. Text of quoted keys and values, nested in
//! braces; what is wanted is known by its key alone.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// More than any of these files has, bytes.
const MOST: u64 = 1024 * 1024;

/// What people call game `app`.
pub(super) fn name(steam: &Path, app: u32) -> String {
    let listed = read(&steam.join("steamapps/libraryfolders.vdf"));
    let elsewhere = values(&listed, "path").map(PathBuf::from);
    let manifest = |library: PathBuf| {
        let text = read(&library.join("steamapps").join(format!("appmanifest_{app}.acf")));
        values(&text, "name").next().filter(|name| !name.is_empty())
    };
    // What was added to Steam by hand has no manifest.
    std::iter::once(steam.to_owned())
        .chain(elsewhere)
        .find_map(manifest)
        .unwrap_or_else(|| "a game from Steam".to_owned())
}

fn read(path: &Path) -> String {
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text));
    if read.is_err() {
        text.clear();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The values of `key`, at any depth.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = String> + 'a {
    let mut rest = text.chars();
    let mut before: Option<String> = None;
    std::iter::from_fn(move || {
        loop {
            match rest.next()? {
                '"' => {
                    let word = quoted(&mut rest);
                    match before.take() {
                        Some(named) if named.eq_ignore_ascii_case(key) => return Some(word),
                        Some(_) => {}
                        None => before = Some(word),
                    }
                }
                // A key before a brace names what is inside.
                '{' | '}' => before = None,
                _ => {}
            }
        }
    })
}

/// What is left of a quoted word.
fn quoted(rest: &mut std::str::Chars<'_>) -> String {
    let mut word = String::new();
    while let Some(letter) = rest.next() {
        match letter {
            '"' => break,
            '\\' => word.extend(rest.next()),
            letter => word.push(letter),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_game_is_called_as_its_manifest_says_in_whichever_library_it_is() {
        let (steam, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&steam, &other] {
            std::fs::create_dir(folder.path().join("steamapps")).unwrap();
        }
        let folders = format!(
            "\"libraryfolders\"\n{{\n\t\"0\"\n\t{{\n\t\t\"path\"\t\t\"{}\"\n\t\t\"label\"\t\t\"\"\n\t}}\n}}\n",
            other.path().display()
        );
        std::fs::write(steam.path().join("steamapps/libraryfolders.vdf"), folders).unwrap();
        std::fs::write(
            other.path().join("steamapps/appmanifest_1086940.acf"),
            "\"AppState\"\n{\n\t\"appid\"\t\t\"1086940\"\n\t\"name\"\t\t\"Baldur's \\\"Gate\\\" 3\"\n}\n",
        )
        .unwrap();
        assert_eq!(name(steam.path(), 1_086_940), "Baldur's \"Gate\" 3");
        assert_eq!(name(steam.path(), 1), "a game from Steam");
    }

    #[test]
    fn a_manifest_cut_short_or_full_of_nonsense_names_nothing() {
        for text in ["", "\"", "\"name\"", "\"name\" {", "}}}}", "\"name\" { \"name\" } \"x\""] {
            assert_eq!(values(text, "name").collect::<Vec<_>>(), Vec::<String>::new(), "{text}");
        }
        assert_eq!(values("\"name\" \"cut sho", "name").collect::<Vec<_>>(), ["cut sho"]);
    }
}
