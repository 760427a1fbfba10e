//! Receipts on the command line: shown, exported, and checked without any engine or network.

use std::io::Read;
use std::path::Path;

use idlewatt_control::{Request, Response};
use idlewatt_engine::home::Home;
use idlewatt_protocol::receipt::{ReceiptFile, Verified};
use serde_json::json;

use crate::args::{Json, Receipt};
use crate::client::ask;
use crate::commands::{print, print_json, show};
use crate::exit::{Exit, Failure};
use crate::say;

/// Does what `idlewatt receipt …` says.
///
/// # Errors
/// What went wrong, with its exit code.
pub(crate) fn execute(home: &Home, command: Receipt) -> Result<(), Failure> {
    match command {
        Receipt::Show { id, json } => show(ask(home, &Request::Receipt { id })?, json),
        Receipt::Verify { file, json } => verify(&file, json),
        Receipt::Export { id, out } => {
            let Response::Receipt(receipt) = ask(home, &Request::Receipt { id })? else { return Ok(()) };
            let Some(path) = out else { return print_json(&receipt) };
            let text = serde_json::to_string_pretty(&receipt).unwrap_or_default();
            std::fs::write(&path, text).map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("{} could not be written: {error}.", path.display()),
                    "The receipt is kept where it was.",
                    "Choose another place.",
                )
            })
        }
    }
}

fn verify(path: &Path, json: Json) -> Result<(), Failure> {
    let verified = read(path)?.verify().map_err(|error| {
        Failure::new(
            Exit::NotVerified,
            format!("The receipt does not verify: {error}."),
            "It is not what its hub and nodes signed.",
            "Fetch it again from the hub; believe no figure in this copy.",
        )
    })?;
    if json.json {
        let Verified { receipt, statements } = &verified;
        return print_json(&json!({ "verified": true, "receipt": receipt, "statements": statements }));
    }
    print(&say::receipt(&verified))
}

fn read(path: &Path) -> Result<ReceiptFile, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|it| text = it)
    };
    read.map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            std::io::ErrorKind::InvalidData => Exit::NotVerified,
            _ => Exit::Failed,
        };
        Failure::new(
            exit,
            format!("{} cannot be read: {error}.", path.display()),
            "Nothing was checked.",
            "Name a receipt file, such as `idlewatt receipt export` writes.",
        )
    })?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(
            Exit::NotVerified,
            format!("{} is no receipt file: {error}.", path.display()),
            "A receipt is a JSON file with a signed envelope; this one was altered, cut off, or is something else.",
            "Export or fetch it again.",
        )
    })
}
