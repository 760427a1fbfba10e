//! The window's TypeScript definitions are these types and nothing else.
//!
//! `cargo test -p idlewatt-control --features ts` fails when `ui/src/lib/generated/control.ts` differs;
//! with `IDLEWATT_WRITE_TYPES=1` it writes the file instead.
#![cfg(feature = "ts")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use idlewatt_control::{Event, Request, Response};
use idlewatt_protocol::receipt::Receipt;
use ts_rs::{Config, TS, TypeVisitor};

const FILE: &str = "ui/src/lib/generated/control.ts";
const HEAD: &str = "// Generated from crates/control by `IDLEWATT_WRITE_TYPES=1 cargo test -p idlewatt-control --features ts`.\n";

/// Every named type that the visited ones reach, by name, so that the file's order never depends on who asks first.
struct Declarations<'a> {
    config: &'a Config,
    found: BTreeMap<String, String>,
}

impl TypeVisitor for Declarations<'_> {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        if T::output_path().is_none() {
            return;
        }
        let name = T::ident(self.config);
        if self.found.contains_key(&name) {
            return;
        }
        let docs = T::docs().unwrap_or_default();
        self.found.insert(name, format!("{docs}export {}\n", T::decl(self.config)));
        T::visit_dependencies(self);
    }
}

fn typescript() -> String {
    // JSON.parse gives numbers; the units refuse what a number cannot hold exactly.
    let config = Config::new().with_large_int("number");
    let mut all = Declarations { config: &config, found: BTreeMap::new() };
    all.visit::<Request>();
    all.visit::<Response>();
    all.visit::<Event>();
    // Travels as the base64 payload of a receipt's envelope.
    all.visit::<Receipt>();
    let declarations: Vec<_> = all.found.into_values().collect();
    let text = format!("{HEAD}\n{}", declarations.join("\n"));
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn the_windows_types_are_the_engines_types() {
    // Asked at run time: a build folder that several checkouts share would remember another one's path.
    let path = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..").join(FILE);
    let now = typescript();
    assert!(!now.contains("bigint"), "an integer would reach the window as a bigint");
    if std::env::var_os("IDLEWATT_WRITE_TYPES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == now,
        "{FILE} is out of date; run IDLEWATT_WRITE_TYPES=1 cargo test -p idlewatt-control --features ts"
    );
}
