//! Model programs that are installed for this user, running or not: a person who has LM Studio and has not turned its
//! server on wants to hear that, and not that there is nothing here.

use std::path::{Path, PathBuf};

use crate::Kind;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Which.
    pub kind: Kind,
    /// What people call it.
    pub name: &'static str,
    /// How its server is turned on.
    pub turn_on: &'static str,
}

impl Installed {
    /// Whether a program is a part of it, by its file or by its name alone.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        let plain = |text: &str| -> String {
            text.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect()
        };
        let name = plain(self.name);
        // Short names begin others.
        let is = |part: String| part == name || name.len() > 5 && part.starts_with(&name);
        program.split(['/', '\\']).any(|part| is(plain(part)))
    }
}

/// Where each leaves its files under a home folder, on any platform.
const KNOWN: [(Installed, &[&str]); 3] = [
    (
        Installed {
            kind: Kind::LmStudio,
            name: "LM Studio",
            turn_on: "In LM Studio open Developer and start the server, or run `lms server start`.",
        },
        // Since 0.3.6, and before.
        &[".lmstudio/bin", ".lmstudio-home-pointer", ".cache/lm-studio/bin"],
    ),
    (
        Installed { kind: Kind::Ollama, name: "Ollama", turn_on: "Start Ollama, or run `ollama serve`." },
        &[".ollama/models", ".ollama/id_ed25519"],
    ),
    (
        Installed {
            kind: Kind::Jan,
            name: "Jan",
            turn_on: "In Jan open Settings, Local API Server, and start it.",
        },
        &[".local/share/Jan/data", ".config/Jan", "Library/Application Support/Jan", "AppData/Roaming/Jan"],
    ),
];

/// What is installed, by what it leaves under the user's home folder.
#[must_use]
pub fn installed(home: &Path) -> Vec<Installed> {
    let is_there = |places: &[&str]| places.iter().any(|place| home.join(PathBuf::from(place)).exists());
    KNOWN.into_iter().filter(|(_, places)| is_there(places)).map(|(it, _)| it).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_programs_are_known_by_their_folders_and_names() {
        let it = |kind| KNOWN.iter().find(|(it, _)| it.kind == kind).unwrap().0;
        for program in ["/opt/LM Studio/lm-studio", "/home/i/.lmstudio/.internal/utils/node", "lm-studio"] {
            assert!(it(Kind::LmStudio).has(program), "{program}");
        }
        assert!(it(Kind::Ollama).has("/usr/local/bin/ollama") && it(Kind::Jan).has("C:\\Apps\\Jan\\Jan.exe"));
        for program in ["/usr/bin/janet", "/home/jane/blender", "studio"] {
            assert!(!KNOWN.iter().any(|(it, _)| it.has(program)), "{program}");
        }
    }

    #[test]
    fn lm_studio_with_its_server_off_is_found_by_its_files() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(installed(home.path()), []);
        std::fs::create_dir_all(home.path().join(".lmstudio/bin")).unwrap();
        let found = installed(home.path());
        assert_eq!(found.iter().map(|it| it.kind).collect::<Vec<_>>(), [Kind::LmStudio]);
        assert!(found[0].turn_on.contains("lms server start"));
    }
}
