//! The hub's admin page in a browser: what is looked at is in `ui/e2e`.

use std::process::Command;

use idlewatt_tests::{Hub, Ran};

#[test]
fn an_operator_runs_the_hub_from_a_page() {
    let hub = Hub::start();
    let link = hub.run(&["admin", "link", "--json"]).json();
    let mut command = Command::new("npm");
    command
        .args(["run", "--silent", "e2e", "--", "e2e/admin.test.mjs"])
        .current_dir(idlewatt_tests::here().join("../ui"))
        .env("IDLEWATT_ADMIN", link["link"].as_str().expect("an address"));
    let ran = Ran::of(&mut command);
    println!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(0));
    hub.check_ledger();
}
