//! The settings file as text: reading its pairs, and changing one of them without disturbing the rest.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use idlewatt_control::{Code, ControlError};
use toml_edit::{Array, Document, DocumentMut, Item, Table, Value};

use crate::home::{not_written, open_private};

/// The file's text; empty where there is none.
pub(super) fn read(path: &Path) -> Result<String, ControlError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|error| {
            ControlError::new(
                Code::BadConfig,
                format!("{} cannot be read: {error}.", path.display()),
                "Idlewatt does not guess at settings that it cannot see.",
                "Make it a text file that this user can read.",
            )
        }),
    }
}

/// Waits for the right to change the file: the engine and the command line may both want to.
pub(super) fn turn(path: &Path) -> Result<File, ControlError> {
    let lock = path.with_extension("lock");
    let file = open_private(&lock).map_err(|error| not_written(&lock, &error))?;
    file.lock().map_err(|error| not_written(&lock, &error))?;
    Ok(file)
}

/// Every `section.key` with its value as text (`None` for what is no single value) and its line.
pub(super) fn pairs<S: AsRef<str>>(document: &Document<S>) -> Vec<(String, Option<String>, usize)> {
    let text = document.raw();
    let mut pairs = Vec::new();
    for (section, item) in document.iter() {
        let Some(table) = item.as_table_like() else {
            let line = item.span().map_or(1, |span| line_of(text, span.start));
            pairs.push((section.to_owned(), text_of(item), line));
            continue;
        };
        for (key, item) in table.iter() {
            let line = item.span().map_or(1, |span| line_of(text, span.start));
            pairs.push((format!("{section}.{key}"), text_of(item), line));
        }
    }
    pairs
}

/// Every `section.key` with its value and the comment above it.
pub(super) fn documented_pairs<S: AsRef<str>>(document: &Document<S>) -> Vec<(String, String, String)> {
    let text = document.raw();
    let sections = document.iter().filter_map(|(name, item)| Some((name, item.as_table()?)));
    sections
        .flat_map(|(section, table)| table.iter().map(move |(key, item)| (section, table, key, item)))
        .map(|(section, table, key, item)| {
            let comment = table
                .key(key)
                .and_then(|key| key.leaf_decor().prefix())
                .and_then(|prefix| prefix.span())
                .and_then(|span| text.get(span))
                .unwrap_or_default();
            let about: Vec<&str> = comment.lines().map(|line| line.trim_start_matches(['#', ' '])).collect();
            (format!("{section}.{key}"), text_of(item).unwrap_or_default(), about.join(" ").trim().to_owned())
        })
        .collect()
}

/// 1 for the first line.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The file with `key` set to `value`, in the type that the default file gives it.
pub(super) fn with(text: &str, key: &str, value: &str) -> String {
    let (Some((section, key)), Ok(mut document)) = (key.split_once('.'), text.parse::<DocumentMut>()) else {
        return text.to_owned();
    };
    let mut value = typed(section, key, value);
    let table = document.entry(section).or_insert_with(|| Item::Table(Table::new()));
    let Some(table) = table.as_table_like_mut() else { return text.to_owned() };
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(table.insert(key, Item::Value(value))),
    }
    document.to_string()
}

/// The file without `key`'s own line; the comments around it stay.
pub(super) fn without(text: &str, key: &str) -> String {
    let (Some((section, key)), Ok(document)) = (key.split_once('.'), Document::parse(text)) else {
        return text.to_owned();
    };
    let place = document.get(section).and_then(Item::as_table).and_then(|table| {
        let start = table.key(key)?.span()?.start;
        Some((start, table.get(key)?.span()?.end))
    });
    let Some((start, end)) = place else { return text.to_owned() };
    let end = text.get(end..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| end + n + 1);
    [text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default()].concat()
}

fn text_of(item: &Item) -> Option<String> {
    match item.as_value()? {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(flag) => Some(flag.value().to_string()),
        Value::Array(list) => list
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(|list| list.join(", ")),
        Value::Datetime(_) | Value::InlineTable(_) => None,
    }
}

fn typed(section: &str, key: &str, text: &str) -> Value {
    let document = Document::parse(super::DEFAULTS).ok();
    let default = document
        .as_ref()
        .and_then(|document| document.get(section)?.get(key)?.as_value().map(Value::type_name));
    match default {
        Some("integer") => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
        Some("boolean") => text.parse::<bool>().map_or_else(|_| text.into(), Value::from),
        Some("array") => super::keys::list(text).collect::<Array>().into(),
        _ => text.into(),
    }
}
