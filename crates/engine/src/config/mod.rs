//! The host's settings: one TOML file, of which the embedded default file is the documentation.
//!
//! [`Config`] is what holds now: the host's choices over the defaults. A file that cannot be read is an error that names
//! its line; it is never overwritten, and whoever holds an earlier [`Config`] goes on with that. Not here: what a node
//! remembers by itself, such as networks joined (`choices`).

mod file;
mod keys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use idlewatt_control::{Code, ConfigEntry, ControlError};
use toml_edit::Document;

pub use keys::{FreeAfter, KeyStore, ManagedServer, Reserve, Settings};

/// The documented default file.
pub const DEFAULTS: &str = include_str!("default.toml");

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    settings: Settings,
    /// What the host chose, as text, by dotted key.
    chosen: BTreeMap<String, String>,
    unknown: Vec<String>,
}

impl Config {
    /// Reads the host's file; one that is not there is one without choices.
    ///
    /// # Errors
    /// When it cannot be read, or a line of it is not valid: the error names the line.
    pub fn load(path: &Path) -> Result<Self, ControlError> {
        let text = file::read(path)?;
        Self::of_text(path, &text)
    }

    fn of_text(path: &Path, text: &str) -> Result<Self, ControlError> {
        let config = Self::read(path, text)?;
        let line = |key: &str| {
            let document = Document::parse(text).ok()?;
            Some(file::pairs(&document).into_iter().find(|(it, ..)| it == key)?.2)
        };
        config
            .settings
            .fit()
            .map_err(|(key, why)| not_valid(path, line(key).unwrap_or(1), &format!("{key}: {why}")))?;
        Ok(config)
    }

    /// Each value by itself; whether they fit together is still to be seen.
    fn read(path: &Path, text: &str) -> Result<Self, ControlError> {
        let document = Document::parse(text).map_err(|error| {
            let line = error.span().map_or(1, |span| file::line_of(text, span.start));
            not_valid(path, line, error.message())
        })?;
        let mut settings = Settings::default();
        let mut chosen = BTreeMap::new();
        let mut unknown = Vec::new();
        for (key, value, line) in file::pairs(&document) {
            let Some(rule) = keys::find(&key) else {
                unknown.push(key);
                continue;
            };
            let applied = value.ok_or_else(|| "this key takes one value, not a table".to_owned());
            let applied = applied.and_then(|text| (rule.apply)(&mut settings, &text).map(|()| text));
            chosen.insert(key, applied.map_err(|why| not_valid(path, line, &why))?);
        }
        Ok(Self { path: path.to_path_buf(), settings, chosen, unknown })
    }

    /// The values for programs as they would be with these edits, by key as text; an empty one takes the choice back.
    ///
    /// # Errors
    /// When there is no such key, or a value is none for it.
    pub fn settings_with(&self, edits: &BTreeMap<String, String>) -> Result<Settings, ControlError> {
        let mut chosen = self.chosen.clone();
        for (key, value) in edits {
            match value.trim() {
                "" => drop(chosen.remove(key)),
                value => drop(chosen.insert(key.clone(), value.to_owned())),
            }
        }
        let mut settings = Settings::default();
        for (key, value) in chosen.iter().chain(edits.iter().filter(|(_, value)| value.trim().is_empty())) {
            let rule = keys::find(key).ok_or_else(|| no_such_key(key))?;
            if !value.trim().is_empty() {
                (rule.apply)(&mut settings, value).map_err(|why| bad_value(key, value, &why))?;
            }
        }
        settings.fit().map_err(|(key, why)| do_not_fit(key, &why))?;
        Ok(settings)
    }

    /// The values for programs.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the file is, or would be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keys in the file that mean nothing to this version.
    #[must_use]
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// One setting's value as text.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<String> {
        let default = documented().into_iter().find(|entry| entry.key == key)?.default;
        Some(self.chosen.get(key).cloned().unwrap_or(default))
    }

    /// All settings with their meaning, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> Vec<ConfigEntry> {
        let mut entries = documented();
        for entry in &mut entries {
            if let Some(chosen) = self.chosen.get(&entry.key) {
                entry.value.clone_from(chosen);
            }
        }
        entries
    }
}

/// Changes one setting in the file and gives back what then holds. An empty value takes the choice back. Comments and
/// everything else in the file stay.
///
/// # Errors
/// When there is no such key, the value is not valid, the file is not valid already, or it cannot be written. The file
/// is then as it was.
pub fn set(path: &Path, key: &str, value: &str) -> Result<Config, ControlError> {
    let _turn = file::turn(path)?;
    let text = file::read(path)?;
    Config::of_text(path, &text)?;
    let rule = keys::find(key).ok_or_else(|| no_such_key(key))?;
    let value = value.trim();
    let changed = if value.is_empty() {
        file::without(&text, key)
    } else {
        (rule.apply)(&mut Settings::default(), value).map_err(|why| bad_value(key, value, &why))?;
        file::with(&text, key, value)
    };
    // What was written must read back as what was meant, before it replaces anything.
    let config = Config::read(path, &changed)?;
    config.settings.fit().map_err(|(key, why)| do_not_fit(key, &why))?;
    crate::home::write_private(path, changed.as_bytes())?;
    Ok(config)
}

/// Writes the documented file with every choice commented out, if there is none yet.
///
/// # Errors
/// When it cannot be written.
pub fn seed(path: &Path) -> Result<(), ControlError> {
    if path.exists() {
        return Ok(());
    }
    let text: String = DEFAULTS
        .lines()
        .map(|line| match line.chars().next() {
            None | Some('#' | '[') => format!("{line}\n"),
            Some(_) => format!("# {line}\n"),
        })
        .collect();
    crate::home::write_private(path, text.as_bytes())
}

/// Whether only the command line may set this key.
///
/// # Errors
/// When there is no such key.
pub fn is_local_only(key: &str) -> Result<bool, ControlError> {
    keys::find(key).map(|rule| rule.local_only).ok_or_else(|| no_such_key(key))
}

/// Every key with its default and what the default file says about it.
fn documented() -> Vec<ConfigEntry> {
    let Ok(document) = Document::parse(DEFAULTS) else { return Vec::new() };
    file::documented_pairs(&document)
        .into_iter()
        .map(|(key, default, about)| ConfigEntry {
            local_only: keys::find(&key).is_some_and(|rule| rule.local_only),
            value: default.clone(),
            key,
            default,
            about,
        })
        .collect()
}

fn not_valid(path: &Path, line: usize, why: &str) -> ControlError {
    ControlError::new(
        Code::BadConfig,
        format!("{} is not valid at line {line}: {}.", path.display(), why.trim_end_matches('.')),
        "The file is left as it is; an engine that runs keeps its last good settings.",
        "Mend that line, or put a `#` before it.",
    )
}

fn bad_value(key: &str, value: &str, why: &str) -> ControlError {
    // An address may hold a password, which nobody repeats.
    let said = if value.contains("://") { "That".to_owned() } else { format!("{value:?}") };
    ControlError::new(
        Code::BadValue,
        format!("{said} is no value for {key}: {}.", why.trim_end_matches('.')),
        "The setting is as it was.",
        format!("`idlewatt config get {key}` shows what it takes."),
    )
}

fn do_not_fit(key: &str, why: &str) -> ControlError {
    ControlError::new(
        Code::BadValue,
        format!("{key} would not fit any more: {why}."),
        "The settings are as they were.",
        format!("Take it back first (`idlewatt config set {key} \"\"`), then set both anew."),
    )
}

fn no_such_key(key: &str) -> ControlError {
    let near = keys::nearest(key).map_or_else(String::new, |near| format!(" Did you mean {near}?"));
    ControlError::new(
        Code::NotFound,
        format!("There is no setting {key:?}.{near}"),
        "Nothing was changed.",
        "`idlewatt config get` lists all settings.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("idlewatt.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_default_file_documents_every_key_and_every_documented_key_parses() {
        let documented: Vec<String> = documented().into_iter().map(|entry| entry.key).collect();
        let known: Vec<&str> = keys::KEYS.iter().map(|rule| rule.name).collect();
        assert_eq!(
            documented, known,
            "default.toml and the table of keys hold the same keys in the same order"
        );
        for entry in super::documented() {
            assert!(entry.about.len() > 30, "{} is explained", entry.key);
        }
        let config = Config::of_text(Path::new("default.toml"), DEFAULTS).unwrap();
        assert_eq!(config.settings(), &Settings::default(), "the file's values are the defaults in force");
        assert!(config.unknown().is_empty());
    }

    #[test]
    fn the_seeded_file_chooses_nothing() {
        let (folder, _) = scratch("");
        let path = folder.path().join("new.toml");
        seed(&path).unwrap();
        let config = Config::load(&path).unwrap();
        assert!(config.chosen.is_empty());
        assert!(std::fs::read_to_string(&path).unwrap().contains("# idle_after = \"10m\""));
    }

    #[test]
    fn setting_keeps_every_comment_and_every_other_line() {
        let before = "# mine\n[share]\nidle_after = \"5m\" # short\n# why not\nwhile_active = true\n";
        let (_folder, path) = scratch(before);
        let config = set(&path, "share.idle_after", "1m").unwrap();
        assert_eq!(config.value("share.idle_after").unwrap(), "1m");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before.replace("5m", "1m"));
        set(&path, "thermal.limit", "70").unwrap();
        let after = std::fs::read_to_string(&path).unwrap();
        assert_eq!(after, format!("{}\n[thermal]\nlimit = 70\n", before.replace("5m", "1m")));
        let config = set(&path, "share.while_active", "").unwrap();
        assert_eq!(config.value("share.while_active").unwrap(), "false");
        let after = std::fs::read_to_string(&path).unwrap();
        assert!(after.contains("# why not") && !after.contains("while_active"), "{after}");
    }

    #[test]
    fn a_bad_line_is_named_and_the_file_is_not_touched() {
        let text = "[share]\nidle_after = \"1m\"\nwindows = [oops\n";
        let (_folder, path) = scratch(text);
        let error = Config::load(&path).unwrap_err();
        assert_eq!(error.code, Code::BadConfig);
        assert!(error.what.contains("line 3") || error.what.contains("line 4"), "{}", error.what);
        assert_eq!(set(&path, "thermal.limit", "70").unwrap_err().code, Code::BadConfig);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

        let (_folder, path) = scratch("[thermal]\n\nlimit = 7000\n");
        assert!(Config::load(&path).unwrap_err().what.contains("line 3"));
    }

    #[test]
    fn a_price_limit_in_another_currency_than_the_price_is_told_and_neither_is_lost() {
        let (_folder, path) = scratch("[energy]\nprice = \"0.31 EUR/kWh\"\n");
        let error = set(&path, "energy.max_price", "0.25 USD/kWh").unwrap_err();
        assert_eq!(error.code, Code::BadValue);
        assert!(error.what.contains("USD") && error.what.contains("EUR"), "{}", error.what);
        set(&path, "energy.max_price", "0.25 EUR/kWh").unwrap();
        let error = set(&path, "energy.price", "0.31 USD/kWh").unwrap_err();
        assert!(error.what.contains("energy.max_price") && error.action.contains("energy.max_price"));
        let config = Config::load(&path).unwrap();
        assert_eq!(config.value("energy.price").unwrap(), "0.31 EUR/kWh");
        let edits = BTreeMap::from([("energy.price".to_owned(), "1 CHF/kWh".to_owned())]);
        assert_eq!(config.settings_with(&edits).unwrap_err().code, Code::BadValue);

        let (_folder, path) = scratch("[energy]\nprice = \"1 EUR/kWh\"\nmax_price = \"1 USD/kWh\"\n");
        let error = Config::load(&path).unwrap_err();
        assert!(error.what.contains("line 3") && error.what.contains("max_price"), "{}", error.what);
    }

    #[test]
    fn unknown_keys_are_named_and_harmless() {
        let (_folder, path) = scratch("colour = 1\n[share]\nidle_aftr = \"1m\"\n[future]\nx = 1\n");
        assert_eq!(Config::load(&path).unwrap().unknown(), ["colour", "share.idle_aftr", "future.x"]);
    }

    #[test]
    fn a_bad_value_or_key_says_what_would_be_right() {
        let (_folder, path) = scratch("");
        assert_eq!(set(&path, "share.idle_after", "soon").unwrap_err().code, Code::BadValue);
        let error = set(&path, "share.idle_aftr", "1m").unwrap_err();
        assert!(error.what.contains("share.idle_after"), "{}", error.what);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn lists_are_written_as_lists_and_numbers_as_numbers() {
        let (_folder, path) = scratch("");
        set(&path, "servers.urls", "http://127.0.0.1:9000, http://127.0.0.1:9001").unwrap();
        set(&path, "servers.scan", "false").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("urls = [\"http://127.0.0.1:9000\", \"http://127.0.0.1:9001\"]"), "{text}");
        assert!(text.contains("scan = false"), "{text}");
        assert_eq!(Config::load(&path).unwrap().settings().server_urls.len(), 2);
    }
}
